package iptables

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// repair reads what the kernel has of ours and mends what differs from the program, and no more.
func (d *Driver) repair(ctx context.Context, f *family) error {
	im, _, err := newImage(f.compiler.Program(), f.compiler.Settings().MarkMask)
	if err != nil {
		return err
	}
	f.im = im
	have, err := d.readTables(ctx, f.is, d.tools.use, d.tools)
	if err != nil {
		return err
	}
	if len(have.hidden) > 0 {
		return fmt.Errorf("table %s holds rules that iptables-nft cannot show, made by the nft tool; move them to a table of another name, or set IptablesBackend to Legacy", have.hidden[0])
	}
	if d.read == nil { // of both families
		if d.read, err = d.readSets(ctx, d.tools); err != nil {
			return err
		}
	}
	sets := d.read
	w := &work{sets: map[string]*filter.SetChange{}}
	d.compareSets(f, sets, w)
	if w.edits, err = d.compareTables(f, have); err != nil {
		return err
	}
	d.warn(f, have)
	if len(w.sets)+len(w.edits) > 0 || !w.wipe.empty() {
		if err := d.steps(f, w); err != nil {
			return err
		}
		d.stats.Repairs++
	}
	d.strangers(f, sets)
	f.trusted = true
	return nil
}

// compareSets finds what the kernel's sets lack of the program's, and have too much.
func (d *Driver) compareSets(f *family, have map[string]*heldSet, w *work) {
	f.sets, f.taken = map[string]setState{}, map[string]bool{}
	for name, set := range f.compiler.Program().Sets {
		if setType(set.Kind) == "" {
			continue
		}
		kname, h := d.usable(f, name, set, have)
		if h == nil {
			w.sets[name] = &filter.SetChange{Kind: set.Kind, Sense: set.Sense, New: true, Add: slices.Collect(maps.Keys(set.Elements))}
			f.sets[name] = setState{kname, room(d.cfg.MaxSetSize, len(set.Elements)+1)}
			continue
		}
		f.sets[name] = setState{kname, h.most}
		sc := compareSet(kname, set, h, &w.wipe)
		if len(sc.Add)+len(sc.Remove) > 0 {
			w.sets[name] = sc
		}
	}
}

// usable returns the name of a set, and what the kernel has under it; nil: nothing. A set of another kind, or too
// small, under the rules that use it, is passed over: the program's gets another name.
func (d *Driver) usable(f *family, name string, set *filter.Set, have map[string]*heldSet) (string, *heldSet) {
	for attempt := 0; ; attempt++ {
		kname := setName(f.is, name, set.Kind, attempt)
		h := have[kname]
		switch {
		case h == nil:
			delete(d.dying, kname)
			return kname, nil
		case h.kind == kindOf(set.Kind, f.is) && h.most > len(set.Elements):
			delete(d.dying, kname)
			return kname, h
		}
		f.taken[kname] = true
	}
}

// is tells whether a set is as it must be, without telling how it would differ. One that has all addresses, which are two members, is
// not told so.
func (h *heldSet) is(set *filter.Set) bool {
	if len(h.members) != len(set.Elements) {
		return false
	}
	for _, m := range h.members {
		e, ok := parseMember(set.Kind, m)
		if _, has := set.Elements[e]; !ok || !has {
			return false
		}
	}
	return true
}

// compareSet finds how a set differs. Members that no set of ours can have go to wipe.
func compareSet(kname string, set *filter.Set, h *heldSet, wipe *setEdit) *filter.SetChange {
	sc := &filter.SetChange{Kind: set.Kind, Sense: set.Sense}
	if h.is(set) {
		return sc
	}
	missing := map[string]filter.Element{}
	for e := range set.Elements {
		for _, m := range members(set.Kind, e) {
			missing[m] = e
		}
	}
	var extra []string
	for _, m := range h.members {
		if _, ok := missing[m]; ok {
			delete(missing, m)
		} else {
			extra = append(extra, m)
		}
	}
	for _, m := range extra {
		// With options after it, it may stand for a member of ours.
		plain, _, _ := strings.Cut(m, " ")
		e, ok := parseMember(set.Kind, plain)
		if _, ours := missing[plain]; ok && !ours && plain == m {
			sc.Remove = append(sc.Remove, e)
		} else {
			wipe.line("del "+kname+" "+plain+"\n", "add "+kname+" "+m+"\n")
			if ours {
				wipe.line("add "+kname+" "+plain+"\n", "del "+kname+" "+plain+"\n")
				delete(missing, plain)
			}
		}
	}
	seen := map[filter.Element]bool{}
	for _, e := range missing {
		if !seen[e] {
			seen[e] = true
			sc.Add = append(sc.Add, e)
		}
	}
	return sc
}

// strangers has the sets go that are the family's and in no program.
func (d *Driver) strangers(f *family, have map[string]*heldSet) {
	used := map[string]bool{}
	for _, s := range f.sets {
		used[s.name] = true
	}
	for name := range have {
		if d.ofFamily(f, name) && !used[name] {
			d.dying[name] = min(d.dying[name], burials-1)
		}
	}
	clear(f.taken)
}

func (d *Driver) ofFamily(f *family, set string) bool {
	return strings.HasPrefix(set, map[dataplane.Family]string{dataplane.IPv4: "cali4", dataplane.IPv6: "cali6"}[f.is])
}

// compareTables finds what the kernel's tables lack of the image's, and have too much.
func (d *Driver) compareTables(f *family, have *held) ([]*tableEdit, error) {
	w := d.renderer(f)
	var out []*tableEdit
	for in := range tables {
		te := &tableEdit{table: in}
		h := &have.tables[in]
		wanted, want := map[string]bool{}, map[string]jump{}
		for key, rules := range f.im.placed[in] {
			name := f.im.chainName(key)
			wanted[name] = true
			bodies, err := w.rules(in, rules)
			if err != nil {
				return nil, f.im.refused(name, fmt.Errorf("table %s, chain %s, %w", in, name, err))
			}
			old, had := h.chains[name]
			if !had || !alike(bodies, old) {
				e := f.im.edit(key, had, true)
				e.old, e.new = old, bodies
				te.chains = append(te.chains, e)
			}
			if b := f.im.bases[key]; b != nil {
				j := d.jump(b.Hook)
				want[j.chain] = j
			}
		}
		te.chains = append(te.chains, h.unwanted(wanted)...)
		d.compareJumps(te, h, want, f)
		if !te.empty() {
			out = append(out, te)
		}
	}
	return out, nil
}

// unwanted has the chains go that are not wanted; those to which rules of others lead are emptied.
func (h *heldTable) unwanted(wanted map[string]bool) (out []edit) {
	for name, old := range h.chains {
		if wanted[name] {
			continue
		}
		held := slices.ContainsFunc(h.foreign, func(r reference) bool { return r.chain == name })
		if !held || len(old) > 0 {
			out = append(out, edit{name: name, had: true, has: held, old: old})
		}
	}
	return out
}

// compareJumps has each of our jumps there once, and in the first place if it is to be, and none else.
func (d *Driver) compareJumps(te *tableEdit, h *heldTable, want map[string]jump, f *family) {
	have := map[string][]jump{}
	for _, j := range h.jumps {
		have[j.chain] = append(have[j.chain], j)
	}
	for chain, j := range want {
		right := len(have[chain]) == 1 && identity(have[chain][0].body) == identity(j.body)
		if right && (d.cfg.Append || have[chain][0].at == 1 || !d.mayMove(f, te.table, chain)) {
			delete(have, chain)
			continue
		}
		te.add = append(te.add, j)
	}
	for _, js := range have {
		te.remove = append(te.remove, js...)
	}
}

// pace is when a jump that others have displaced may be put into its place again.
type pace struct {
	next  time.Time
	pause time.Duration
}

const (
	firstPause = 5 * time.Second
	maxPause   = 5 * time.Minute
)

// mayMove tells whether a jump may be put into the first place now. Who keeps putting rules before it is
// answered with growing pauses.
func (d *Driver) mayMove(f *family, in table, chain string) bool {
	key := fmt.Sprint(f.is, in, chain)
	p := d.pace[key]
	now := d.now()
	switch {
	case p == nil || now.After(p.next.Add(2*p.pause)):
		p = &pace{pause: firstPause}
		d.pace[key] = p
	case now.Before(p.next):
		return false
	default:
		p.pause = min(2*p.pause, maxPause)
	}
	p.next = now.Add(p.pause)
	return true
}

// warn notes what rules of others use of ours that is to go.
func (d *Driver) warn(f *family, have *held) {
	used := map[string]bool{}
	for _, s := range f.sets {
		used[s.name] = true
	}
	for in := range tables {
		for key := range f.im.placed[in] {
			used[f.im.chainName(key)] = true
		}
	}
	d.warnings[commands[f.is]] = warnings(commands[f.is], have, used)
}

func warnings(command string, have *held, used map[string]bool) (out []string) {
	for in := range tables {
		for _, r := range have.tables[in].foreign {
			if r.chain != "" && !used[r.chain] {
				out = append(out, fmt.Sprintf("%s, table %s: the rule %q, which is not ours, leads to our chain %s, which therefore stays; delete the rule", command, in, r.where, r.chain))
			}
			if r.set != "" && !used[r.set] {
				out = append(out, fmt.Sprintf("%s, table %s: the rule %q, which is not ours, asks our set %s, which therefore stays; delete the rule", command, in, r.where, r.set))
			}
		}
	}
	return out
}
