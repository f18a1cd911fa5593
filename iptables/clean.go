package iptables

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// Clean removes every chain, jump and set of ours from the kernel, of both variants, if there are any. What is
// not ours stays as it is. Without the programs there is nothing to do.
func (d *Driver) Clean(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tools
	if t == nil {
		t, _ = d.findTools(ctx) // what is missing holds nothing of ours
	}
	d.alone = false
	d.distrust()
	d.warnings = map[string][]string{}
	var errs []error
	for _, v := range []Variant{NFT, Legacy} {
		errs = append(errs, d.cleanVariant(ctx, t, v))
	}
	if t.ipset != "" {
		errs = append(errs, d.cleanSets(ctx, t))
	}
	return errors.Join(errs...)
}

// cleanOther removes what the variant that is not used has of ours.
func (d *Driver) cleanOther(ctx context.Context) error {
	for _, v := range []Variant{NFT, Legacy} {
		if v == d.tools.use {
			continue
		}
		if err := d.cleanVariant(ctx, d.tools, v); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) cleanVariant(ctx context.Context, t *tools, v Variant) error {
	if t.found[v] == nil {
		return nil
	}
	for _, f := range dataplane.Families {
		if t.found[v].save[f] == "" || f == dataplane.IPv6 && !d.hasIPv6() {
			continue
		}
		h, err := d.readTables(ctx, f, v, t)
		if err != nil {
			if unsupported(err) {
				continue
			}
			return fmt.Errorf("%s (%v): %w", commands[f], v, err)
		}
		for in := range tables {
			e := h.tables[in].removal(in)
			if e.empty() {
				continue
			}
			if v == NFT { // a packet that is held up for two commits would meet chains half gone, and be denied
				netlink.GracePeriod()
			}
			if err := d.run(t.found[v].restore[f], e); err != nil {
				line, n := lineOf(err, e.input())
				return fmt.Errorf("%s (%v): %w", commands[f], v, explain(err, line, n, ""))
			}
			d.stats.Restores++
		}
		key := commands[f] + " (" + v.String() + ")"
		d.warnings[key] = warnings(key, h, nil)
		for _, name := range h.hidden {
			d.warnings[key] = append(d.warnings[key], fmt.Sprintf("%s: table %s holds rules that the nft tool made, and cannot be shown; should chains cali-… be in it, which drop what they do not know, remove them with nft", key, name))
		}
	}
	return nil
}

// unsupported tells whether the kernel lacks what a variant stands on, and so has nothing of ours in it.
func unsupported(err error) bool {
	return strings.Contains(err.Error(), "Protocol not supported") || strings.Contains(err.Error(), "do you need to insmod")
}

// removal removes all that a table has of ours.
func (h *heldTable) removal(in table) *tableEdit {
	return &tableEdit{table: in, chains: h.unwanted(nil), remove: h.jumps}
}

func (d *Driver) cleanSets(ctx context.Context, t *tools) error {
	sets, err := d.readSets(ctx, t)
	if err != nil {
		if unsupported(err) {
			return nil
		}
		return err
	}
	for name := range sets {
		d.dying[name] = 0
	}
	for d.hopeful() {
		if err := d.bury(t); err != nil {
			return err
		}
		if !d.hopeful() {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(burialPause):
		}
	}
	if len(d.dying) == 0 {
		return nil
	}
	return fmt.Errorf("%d sets of ours, %s among them, %w: delete the rules of others that ask them; iptables-save shows these with match-set",
		len(d.dying), slices.Min(slices.Collect(maps.Keys(d.dying))), ErrInUse)
}

// ErrInUse is of sets of ours that rules of others ask. If nothing else is left of us, nothing is denied.
var ErrInUse = errors.New("are still in use")

// burials is how often sets that are in use are tried again, and burialPause how long Clean waits
// between: the kernel frees the rules of nf_tables some time after they are gone. A try ends with so many
// that are in use.
const (
	burials     = 20
	burialPause = 20 * time.Millisecond
	maxInUse    = 8
)

func (d *Driver) isDying(set string) bool {
	_, ok := d.dying[set]
	return ok
}

// buryFirst destroys a set whose name is wanted again, though the kernel may take a moment to let go of it.
func (d *Driver) buryFirst(set string) {
	for range burials / 4 {
		if tries, dying := d.dying[set]; !dying || tries >= burials || d.bury(d.tools) != nil || !d.isDying(set) {
			return
		}
		time.Sleep(burialPause)
	}
}

// hopeful tells whether there are sets to destroy that were not tried often.
func (d *Driver) hopeful() bool {
	for _, tries := range d.dying {
		if tries < burials {
			return true
		}
	}
	return false
}

// bury destroys the sets that are to go, those first that were tried least; but for those that are in use, and
// what comes after too many of these. They are tried again with the next Sync, and when they were often, with each read-back;
// [Driver.Warnings] names the rules then that use them.
func (d *Driver) bury(t *tools) error {
	var names []string
	for name, tries := range d.dying {
		if tries < burials {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(d.dying[a], d.dying[b]), strings.Compare(a, b))
	})
	for inUse := 0; len(names) > 0 && inUse < maxInUse; inUse++ {
		done, err := d.destroySome(t, names)
		if err != nil {
			return err
		}
		for _, name := range names[:done] {
			delete(d.dying, name)
		}
		if names = names[done:]; len(names) > 0 {
			d.dying[names[0]]++
			names = names[1:]
		}
	}
	return nil
}

// destroySome destroys sets, up to the first that is in use, and returns how many.
func (d *Driver) destroySome(t *tools, names []string) (int, error) {
	var lines bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&lines, "destroy %s\n", name)
	}
	c := command{ns: d.ns, path: t.ipset, args: []string{"-exist", "restore"}, stdin: lines.Bytes()}
	err := c.run(context.Background(), nil)
	if err == nil {
		return len(names), nil
	}
	_, n := lineOf(err, c.stdin)
	if n == 0 || n > len(names) || !strings.Contains(err.Error(), "in use") {
		return 0, explainSets(err, c.stdin)
	}
	return n - 1, nil
}
