package iptables

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// Config is what a Driver may be told. The zero Config has Calico's defaults.
type Config struct {
	// LogGroup is the NFLOG group of the Log action; 0: the kernel's log, which does not
	// show network namespaces other than the first.
	LogGroup uint16
	Variant  Variant // IptablesBackend
	// Append puts our jumps at the end of the built-in chains (ChainInsertMode Append), and does not
	// mind what comes after them; else they are put in the first place.
	Append bool
	// MaxSetSize is how many members sets have room for (MaxIpsetSize; 0: 1048576). One that
	// must hold more is made larger.
	MaxSetSize int
	// LockTime bounds the waiting for the lock of legacy iptables; 0: 5 s. It is in whole seconds. While another program
	// holds the lock for longer, each Sync asks for it for a second.
	LockTime time.Duration
}

const (
	defaultSetSize  = 1 << 20
	defaultLockTime = 5 * time.Second
	lockedTime      = time.Second
)

// Stats counts what a Driver has done since it was made.
type Stats struct {
	Restores int // runs of iptables-restore that the kernel took
	SetRuns  int // runs of ipset restore that it took
	Reads    int // of a family's tables, or of the sets
	Repairs  int // of a family in which something was not as it must be
	Undone   int // steps that failed and were taken back
}

// Driver holds the policy of a State in iptables and ipset, in one network namespace. It is a
// [dataplane.Driver].
type Driver struct {
	ns  int
	cfg Config

	mu       sync.Mutex
	families []*family
	tools    *tools              // nil: not yet looked for
	alone    bool                // the other variant was found to have nothing of ours
	dying    map[string]int      // sets that are to go, and how often that was tried
	read     map[string]*heldSet // the kernel's sets, as this Sync has read them; nil: it has not
	warnings map[string][]string
	pace     map[string]*pace
	now      func() time.Time
	stats    Stats
	locked   bool // another program had the lock when it was last asked for
	grace    grace
}

var _ dataplane.Driver = (*Driver)(nil)

// family is what is held of one address family.
type family struct {
	is       dataplane.Family
	compiler *filter.Compiler
	trusted  bool // the kernel holds what im and sets say
	im       *image
	sets     map[string]setState // by their names in the program
	taken    map[string]bool     // names of sets that cannot be used
}

// setState is what the kernel has of a set.
type setState struct {
	name string
	most int // how many members it has room for
}

// New returns a Driver for the network namespace of descriptor ns, or netlink.Current. Whether it can
// work is found out by Sync.
func New(ns int, cfg Config) (*Driver, error) {
	if cfg.MaxSetSize < 0 || cfg.MaxSetSize > 1<<31 {
		return nil, fmt.Errorf("MaxIpsetSize %d: must be from 1 to 2147483648", cfg.MaxSetSize)
	}
	if cfg.MaxSetSize == 0 {
		cfg.MaxSetSize = defaultSetSize
	}
	if cfg.LockTime < time.Second {
		cfg.LockTime = defaultLockTime
	}
	d := &Driver{
		ns: ns, cfg: cfg, dying: map[string]int{}, warnings: map[string][]string{},
		pace: map[string]*pace{}, now: time.Now, grace: newGrace(),
	}
	for _, f := range dataplane.Families {
		d.families = append(d.families, &family{is: f, compiler: filter.NewCompiler(f)})
	}
	return d, nil
}

// Close frees what the Driver holds. The kernel's rules stay.
func (d *Driver) Close() {}

// Stats returns the counts so far.
func (d *Driver) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// Variant returns the variant in use; Auto: Sync has not yet found out.
func (d *Driver) Variant() Variant {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tools == nil {
		return Auto
	}
	return d.tools.use
}

// Warnings returns what was found when the kernel was last read, and is not ours to mend: rules of others that use
// chains or sets of ours which would go.
func (d *Driver) Warnings() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, key := range slices.Sorted(maps.Keys(d.warnings)) {
		out = append(out, d.warnings[key]...)
	}
	return out
}

// Update notes a change of the wanted state.
func (d *Driver) Update(delta *dataplane.Delta) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.families {
		f.compiler.Update(delta)
	}
}

// Resync makes the next Sync read the kernel and repair what differs.
func (d *Driver) Resync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.distrust()
}

func (d *Driver) distrust() {
	for _, w := range d.warnings {
		d.alone = d.alone && len(w) == 0 // others may have heeded it
	}
	for _, f := range d.families {
		f.trusted = false
	}
}

// Compilers returns the compilers of the families, for another backend to adopt.
func (d *Driver) Compilers() []*filter.Compiler {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*filter.Compiler
	for _, f := range d.families {
		out = append(out, f.compiler)
	}
	return out
}

// Adopt goes on from another backend's compilers. The next Sync reads the kernel and brings it there.
func (d *Driver) Adopt(compilers []*filter.Compiler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, c := range compilers {
		d.families[i].compiler = c
	}
	d.alone = false
	d.distrust()
}

// Sync brings the kernel to the wanted state, in steps of which each is made wholly or taken back. After
// an error the family is as the last step left it, which lets nothing more through than before, and the next
// Sync reads it back.
func (d *Driver) Sync(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.read = nil
	if d.tools == nil {
		t, err := d.findTools(ctx)
		if err != nil {
			return err
		}
		d.tools = t
	}
	var errs []error
	for _, f := range d.families {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := d.sync(ctx, f)
		var s *settingError
		if errors.As(err, &s) {
			return err // of no family
		}
		if err != nil {
			f.trusted = false
			errs = append(errs, fmt.Errorf("%s (%v): %w", commands[f.is], d.tools.use, err))
			if d.locked {
				break // it is one lock
			}
		}
	}
	if len(errs) == 0 && !d.alone {
		err := d.cleanOther(ctx)
		d.alone = err == nil
		errs = append(errs, err)
	}
	d.read = nil // many may be in it
	return errors.Join(append(errs, d.bury(d.tools))...)
}

func (d *Driver) sync(ctx context.Context, f *family) error {
	switch {
	case f.is == dataplane.IPv6 && !d.hasIPv6():
		f.trusted = false
		return f.settle()
	case d.tools.found[d.tools.use].restore[f.is] == "":
		f.trusted = false
		return cmp.Or(f.settle(), d.absent(f))
	}
	_, _, spare := filter.Marks(f.compiler.Settings().MarkMask)
	if !f.trusted || spare&-spare != f.im.low.scratch {
		f.trusted = false
		if err := f.settle(); err != nil {
			return err
		}
		return d.repair(ctx, f)
	}
	ch, err := f.compiler.Changes()
	if err != nil {
		return &settingError{err}
	}
	if ch.Empty() {
		return nil
	}
	return d.change(f, ch)
}

// settle has the program be the one of the present state.
func (f *family) settle() error {
	if err := f.compiler.Settle(); err != nil {
		return &settingError{err}
	}
	return nil
}

// settingError says which setting cannot be held.
type settingError struct{ error }

// change goes from what the kernel has, which is known, to what the program has become.
func (d *Driver) change(f *family, ch *filter.Changes) error {
	t, err := f.im.apply(f.compiler.Program(), ch)
	if err != nil {
		return err
	}
	if err := d.enlarge(f, ch); err != nil {
		return err
	}
	d.nameSets(f, ch.Sets)
	edits, err := d.edits(f, t)
	if err != nil {
		return err
	}
	if err := d.steps(f, &work{sets: ch.Sets, edits: edits}); err != nil {
		return err
	}
	d.leave(f, ch.Sets)
	return nil
}

// work is what leads to a program.
type work struct {
	sets  map[string]*filter.SetChange
	wipe  setEdit // of members that no set of ours has
	edits []*tableEdit
}

// phases are what may come before the rules, with them, and after them, as package filter has it.
type phases struct {
	closing, rules, opening map[string]*filter.SetChange
	opens                   bool // packets could pass by opening that are under way by rules of before
}

func phasesOf(sets map[string]*filter.SetChange) (p phases) {
	c := &filter.Changes{Sets: sets, Chains: map[string]*filter.Chain{"": nil}}
	at := &p.closing
	for _, step := range c.Steps() {
		if len(step.Chains) > 0 {
			p.rules, at = step.Sets, &p.opening
			continue
		}
		*at, p.opens = step.Sets, step.Opens()
	}
	return p
}

// steps does the work: what only closes, the rules, and when no packet is under way that met the old ones, what
// only opens.
func (d *Driver) steps(f *family, w *work) error {
	p := phasesOf(w.sets)
	if err := d.setStep(f, p.closing, nil); err != nil {
		return err
	}
	if err := d.setStep(f, p.rules, &w.wipe); err != nil {
		return err
	}
	if err := d.rules(f, w.edits); err != nil {
		return err
	}
	if p.opens {
		d.grace.beforeOpening()
	}
	return d.setStep(f, p.opening, nil)
}

// setStep changes sets; those that go are left to [Driver.leave].
func (d *Driver) setStep(f *family, sets map[string]*filter.SetChange, e *setEdit) error {
	if e == nil {
		e = &setEdit{}
	}
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		sc := sets[name]
		state := f.sets[name]
		switch {
		case setType(sc.Kind) == "" || sc.Gone:
		case sc.New:
			e.make(state.name, sc.Kind, f.is, state.most, sc.Add)
		default:
			e.change(state.name, sc.Kind, sc.Add, sc.Remove)
		}
	}
	return d.restoreSets(f, e)
}

// nameSets gives new sets a name and a size.
func (d *Driver) nameSets(f *family, sets map[string]*filter.SetChange) {
	for name, sc := range sets {
		if !sc.New || setType(sc.Kind) == "" {
			continue
		}
		d.buryFirst(setName(f.is, name, sc.Kind, 0))
		n := 0
		for d.isDying(setName(f.is, name, sc.Kind, n)) || f.taken[setName(f.is, name, sc.Kind, n)] {
			n++
		}
		f.sets[name] = setState{setName(f.is, name, sc.Kind, n), room(d.cfg.MaxSetSize, len(sc.Add))}
	}
}

// leave forgets the sets that went from the program, and has them destroyed.
func (d *Driver) leave(f *family, sets map[string]*filter.SetChange) {
	for name, sc := range sets {
		if s, ok := f.sets[name]; ok && sc.Gone {
			d.dying[s.name] = 0
			delete(f.sets, name)
		}
	}
}

// enlarge makes sets anew that have no room for what comes, with the members that they have.
func (d *Driver) enlarge(f *family, ch *filter.Changes) error {
	for name, sc := range ch.Sets {
		s, ok := f.sets[name]
		if !ok || sc.New || sc.Gone {
			continue
		}
		now := f.compiler.Program().Sets[name].Elements
		need := len(now) + len(sc.Remove) + 1 // at most, as members go after others came; and 0/0 is two
		if need <= s.most {
			continue
		}
		added := make(map[filter.Element]bool, len(sc.Add))
		for _, e := range sc.Add {
			added[e] = true
		}
		had := slices.Clone(sc.Remove)
		for e := range now {
			if !added[e] {
				had = append(had, e)
			}
		}
		if err := d.swap(f, s.name, sc.Kind, room(d.cfg.MaxSetSize, need), had); err != nil {
			return err
		}
		f.sets[name] = setState{s.name, room(d.cfg.MaxSetSize, need)}
	}
	return nil
}

// swap puts a set of another size in a set's place, of which no packet takes notice.
func (d *Driver) swap(f *family, name string, k filter.SetKind, most int, had []filter.Element) error {
	temp := tempName(name)
	var e setEdit
	e.line("destroy "+temp+"\n", "")
	e.make(temp, k, f.is, most, had)
	e.line("swap "+temp+" "+name+"\n", "") // the last line: if it is not taken there is nothing to undo
	if err := d.restoreSets(f, &e); err != nil {
		return err
	}
	d.dying[temp] = 0
	return nil
}

// renderer writes the rules of a family.
func (d *Driver) renderer(f *family) *renderer {
	return &renderer{
		family: f.is, logGroup: d.cfg.LogGroup, randomFully: d.tools.found[d.tools.use].randomFully,
		chainName: f.im.chainName,
		setName: func(name string) (string, error) {
			if s, ok := f.sets[name]; ok {
				return s.name, nil
			}
			return "", fmt.Errorf("there is no set %s", name)
		},
	}
}

// edits renders the chains that were touched.
func (d *Driver) edits(f *family, t *touched) ([]*tableEdit, error) {
	w := d.renderer(f)
	var out []*tableEdit
	for in := range tables {
		te := &tableEdit{table: in}
		for key, old := range t.old[in] {
			now, has := f.im.placed[in][key]
			e := f.im.edit(key, old != nil, has)
			var err error
			if e.new, err = w.rules(in, now); err == nil && old != nil {
				e.old, err = w.rules(in, *old)
			}
			if err != nil {
				return nil, f.im.refused(e.name, fmt.Errorf("table %s, chain %s, %w", in, e.name, err))
			}
			te.chains = append(te.chains, e)
			if b := f.im.bases[key]; b != nil && has && old == nil {
				te.add = append(te.add, d.jump(b.Hook))
			}
		}
		if !te.empty() {
			out = append(out, te)
		}
	}
	return out, nil
}

// jump is the rule by which packets come to a base chain.
func (d *Driver) jump(h filter.Hook) jump {
	j := jump{chain: hookNames[h], body: commented(" -j " + baseName(h)), at: 1}
	if d.cfg.Append {
		j.at = 0
	}
	return j
}
