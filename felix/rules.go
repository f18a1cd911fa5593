package felix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/iptables"
	"github.com/calicogo/calico/nft"
	"github.com/calicogo/calico/reconcile"
)

// backend is what holds the rules in the kernel.
type backend interface {
	dataplane.Driver
	Compilers() []*filter.Compiler // the two families'
	Adopt([]*filter.Compiler)      // go on from another's; the next Sync reads the kernel
	Clean(context.Context) error   // remove what is ours from the kernel, if there is any
	Close()
}

// choice says which backend holds the rules, and how that was made.
type choice struct {
	backend  dataplane.Backend
	iptables dataplane.IptablesSettings // zero but for Iptables
}

func (c choice) String() string {
	if c.backend == dataplane.Iptables {
		return fmt.Sprintf("iptables (%s)", c.iptables.Variant)
	}
	return c.backend.String()
}

func (c choice) other() choice {
	if c.backend == dataplane.Iptables {
		return choice{}
	}
	return choice{dataplane.Iptables, dataplane.DefaultSettings().Iptables}
}

func choiceOf(s *dataplane.Settings) choice {
	if s.Backend != dataplane.Iptables {
		return choice{}
	}
	return choice{s.Backend, s.Iptables}
}

// opener makes backends.
type opener func(choice) (backend, error)

// minRefresh keeps a slip in the setting from having the kernel read back without end.
const minRefresh = time.Second

// Pauses between tries of a backend that cannot be brought up, and of cleaning up after one.
const (
	firstTry = time.Second
	lastTry  = time.Minute
)

// rules holds the rules in the backend that the settings ask for. While it goes from one to another both
// are in force, so that a packet passes only what both allow: the next holds everything
// before anything of the last goes.
//
// One backend at a time has the compilers, so that what they change is in its part of the
// kernel. A packet on its way through the overlap is logged twice if both log it, and
// translated once: whichever comes first at the hook binds the flow's addresses.
type rules struct {
	open opener
	now  func() time.Time

	mu        sync.Mutex
	compilers []*filter.Compiler
	want, is  choice
	cur       backend // nil: none was brought up yet
	trouble   error   // why want is not what is; nil: it is
	tries     backoff // of want
	sweeps    backoff // of the other backend's leftovers
	swept     bool    // the other has nothing of ours in the kernel
	refresh   time.Duration
	read      time.Time // when the kernel was last distrusted as a whole
	outcasts  outcasts
	differ    func(*dataplane.Delta) // is told what the rules have otherwise than was said
	gap       func()                 // is told that for a time nothing of ours was in force
	switched  bool                   // from one backend to another
	traces    bool                   // as last looked: iptables' tables may have something of ours
	started   bool                   // a first Sync is over; what can wait until then does
	warnings  []string               // of what others have that stands in the way

	ns  int
	nft *nft.Driver // kept open: who watches knows its socket; nil: the kernel has no nftables
}

var _ dataplane.Driver = (*rules)(nil)

func newRules(open opener) *rules {
	r := &rules{open: open, now: time.Now, refresh: dataplane.DefaultSettings().Refresh, outcasts: newOutcasts(), differ: func(*dataplane.Delta) {}, gap: func() {}}
	for _, f := range dataplane.Families {
		r.compilers = append(r.compilers, filter.NewCompiler(f))
	}
	return r
}

// kernelBackends opens the backends of a namespace. The nftables one is n, if there is one, for
// its socket is known to those who watch.
func kernelBackends(ns int, n *nft.Driver) opener {
	return func(c choice) (backend, error) {
		if c.backend == dataplane.NFTables {
			if n != nil {
				return keptOpen{n}, nil
			}
			return nft.New(ns, nft.Config{})
		}
		v, err := iptables.ParseVariant(c.iptables.Variant)
		if err != nil {
			return nil, err
		}
		return iptables.New(ns, iptables.Config{Variant: v, Append: c.iptables.Append, MaxSetSize: c.iptables.MaxSetSize})
	}
}

// keptOpen is a backend that is used again.
type keptOpen struct{ backend }

func (keptOpen) Close() {}

// Compilers returns the two families' compilers, whose programs the kernel holds after a Sync without error.
func (r *rules) Compilers() []*filter.Compiler { return r.compilers }

// Backend is the backend in use.
func (r *rules) Backend() dataplane.Backend {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.is.backend
}

// Part is the name of the backend in use, or of the one that was never brought up.
func (r *rules) Part() string { return r.Backend().String() }

func (r *rules) Update(d *dataplane.Delta) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := d.Settings; s != nil {
		if w := choiceOf(s); w != r.want {
			r.want, r.tries = w, backoff{}
		}
		if r.refresh = s.Refresh; r.refresh > 0 {
			r.refresh = max(r.refresh, minRefresh)
		}
	}
	both := r.outcasts.update(d)
	if both != d {
		r.differ(both)
	}
	r.update(both)
}

func (r *rules) update(d *dataplane.Delta) {
	if r.cur != nil {
		r.cur.Update(d)
		return
	}
	for _, c := range r.compilers {
		c.Update(d)
	}
}

func (r *rules) Resync() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resync()
}

func (r *rules) resync() {
	r.read = r.now()
	r.tries = backoff{} // what kept it from the backend that is wanted may be gone
	if r.started {
		r.look()
	}
	if r.cur != nil {
		r.cur.Resync()
	}
}

// Due is when the kernel is to be read back again, which the next Sync from then on does; zero: never.
func (r *rules) Due() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refresh <= 0 {
		return time.Time{}
	}
	return r.read.Add(r.refresh)
}

func (r *rules) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur != nil {
		r.cur.Close()
	}
	if r.nft != nil {
		r.nft.Close()
	}
}

// Sync brings the kernel to the wanted state. What is less than a failure of all has its own error
// each: see [reconcile.KeyErrors].
func (r *rules) Sync(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refresh > 0 && r.now().Sub(r.read) >= r.refresh {
		r.resync()
	}
	if r.cur == nil {
		if err := r.begin(ctx); err != nil {
			return err
		}
	} else if r.want != r.is && r.tries.due(r.now()) {
		r.change(ctx)
	}
	err := r.hold(ctx)
	if errors.Is(err, nft.ErrTaken) {
		err = r.displaced(ctx, err)
	}
	if err != nil {
		return err
	}
	if r.want == r.is {
		r.trouble = nil
	}
	if !r.started && r.is.backend == dataplane.NFTables { // at a start every millisecond counts
		r.started = true
		return r.lesser()
	}
	r.sweep(ctx)
	return r.lesser()
}

// More tells whether the next Sync has something to do that could wait so far.
func (r *rules) More() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cur != nil && !r.swept && r.sweeps.err == nil && r.sweeps.due(r.now())
}

// begin brings up the first backend: the one that is wanted, or, so that policy is enforced at all, the
// other.
func (r *rules) begin(ctx context.Context) error {
	b, err := r.bring(ctx, r.want)
	if err == nil {
		r.use(b, r.want)
		return nil
	}
	if errors.Is(err, errPart) { // it works, but for an object
		r.use(b, r.want)
		return nil
	}
	r.failed(err)
	other := r.want.other()
	b, errOther := r.bring(ctx, other)
	if errOther != nil && !errors.Is(errOther, errPart) {
		return fmt.Errorf("%w; nor does %s work: %w", r.trouble, other, errOther)
	}
	r.use(b, other)
	return nil
}

// errPart is of a backend that works, and could not take some object.
var errPart = errors.New("the kernel refused a part")

// bring has a backend hold everything, while the one in use, if there is one, stays in force.
func (r *rules) bring(ctx context.Context, c choice) (backend, error) {
	b, err := r.open(c)
	if err != nil {
		return nil, err
	}
	b.Adopt(r.compilers)
	err = r.taken(c, b.Sync(ctx))
	var refused *filter.Refused
	if err == nil {
		return b, nil
	}
	if r.cur == nil && errors.As(err, &refused) {
		return b, fmt.Errorf("%w: %w", errPart, err)
	}
	if r.cur != nil && c.backend != r.is.backend { // what it has by half would be in force for good
		r.switched = true
		if errClean := b.Clean(ctx); errClean != nil {
			err = fmt.Errorf("%w; and what it has left cannot be removed: %w", err, errClean)
			r.swept = false
		}
	}
	b.Close()
	return nil, err
}

func (r *rules) use(b backend, c choice) {
	if r.cur != nil {
		r.cur.Close()
		r.switched = true
	}
	if c.backend != r.is.backend || r.cur == nil {
		r.swept, r.sweeps = false, backoff{}
	}
	r.cur, r.is = b, c
}

// change goes to the backend that is wanted. If that does not work the present one goes on.
func (r *rules) change(ctx context.Context) {
	b, err := r.bring(ctx, r.want)
	if err != nil {
		r.failed(err)
		r.cur.Adopt(r.compilers)
		return
	}
	r.use(b, r.want)
}

func (r *rules) failed(err error) {
	r.tries.failed(r.now())
	if !errors.Is(err, nft.ErrTaken) { // which has its own advice
		err = fmt.Errorf("%w; %s", err, adviceOn(r.want))
	}
	r.trouble = fmt.Errorf("%s cannot hold the rules: %w", r.want, err)
}

// taken says what is behind an error of a backend if that is that its table is another process's.
func (r *rules) taken(c choice, err error) error {
	if err == nil || c.backend != dataplane.NFTables || r.nft == nil {
		return err
	}
	if taken := r.nft.Taken(); taken != nil {
		return taken
	}
	return err
}

// displaced has the other backend hold the rules where the table of the one in use is another process's, and so
// nothing of ours is in force. It goes back when that has ended.
func (r *rules) displaced(ctx context.Context, err error) error {
	other := r.is.other()
	b, errOther := r.bring(ctx, other)
	if errOther != nil {
		r.cur.Adopt(r.compilers)
		return fmt.Errorf("%w; nor does %s work: %w", err, other, errOther)
	}
	r.failed(err)
	r.use(b, other)
	r.gap()
	return nil
}

func adviceOn(c choice) string {
	if c.backend == dataplane.Iptables {
		return "install iptables and ipset in the agent's image, or set nftablesMode to Auto"
	}
	return "load the kernel module nf_tables, or set nftablesMode to Disabled to use iptables"
}

// hold syncs the backend in use. An object that the kernel refuses again and again is left out, in the direction
// that closes, so that the others go on.
func (r *rules) hold(ctx context.Context) error {
	err := r.taken(r.is, r.cur.Sync(ctx))
	for range maxOutcasts {
		if err == nil {
			r.outcasts.calm()
			return nil
		}
		d := r.outcasts.refused(err, r.compilers)
		if d == nil {
			return explained(err, r.compilers)
		}
		r.differ(d)
		r.cur.Update(d)
		err = r.cur.Sync(ctx)
	}
	return err
}

// sweep removes what another backend has left behind: the last one, or that of an agent that died between the
// two.
func (r *rules) sweep(ctx context.Context) {
	if r.swept || !r.sweeps.due(r.now()) {
		return
	}
	first := !r.switched
	r.started = true
	if first {
		r.look()
		if r.is.backend == dataplane.NFTables && !r.iptablesTraces() {
			r.swept = true
			return
		}
	}
	b, err := r.open(r.is.other())
	if err != nil {
		r.swept = r.is.backend == dataplane.Iptables // no nftables: nothing in it
		r.sweeps.failed(r.now())                     // no iptables: who has its tables may bring it yet
		return
	}
	defer b.Close()
	if err := b.Clean(ctx); err != nil {
		r.sweeps.failed(r.now())
		r.sweeps.err = leftovers(r.is.other(), err, warningsOf(b))
		return
	}
	r.swept, r.sweeps = true, backoff{}
}

// leftovers says what is left of a backend that could not be cleaned up, and what comes of that.
func leftovers(of choice, err error, warnings []string) error {
	if len(warnings) > 0 {
		err = fmt.Errorf("%w (%s)", err, strings.Join(warnings, "; "))
	}
	if onlySets(err) {
		return fmt.Errorf("what %s has left denies nothing, and could not all be removed: %w", of.backend, err)
	}
	return fmt.Errorf("rules of ours that %s has left could not be removed, and go on dropping what they do not know: %w", of.backend, err)
}

// onlySets tells whether nothing but sets could not be removed.
func onlySets(err error) bool {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(many.Unwrap(), func(err error) bool { return !onlySets(err) })
	}
	if one := errors.Unwrap(err); one != nil {
		return onlySets(one)
	}
	return err == iptables.ErrInUse
}

func warningsOf(b backend) []string {
	if w, ok := b.(interface{ Warnings() []string }); ok {
		return w.Warnings()
	}
	return nil
}

// lesser says what is wrong though the kernel holds the rules.
func (r *rules) lesser() error {
	errs := reconcile.KeyErrors[string]{}
	if r.trouble != nil {
		errs["backend"] = fmt.Errorf("%w; until then %s holds them", r.trouble, r.is)
	}
	if !r.swept && r.sweeps.err != nil {
		errs["leftovers"] = r.sweeps.err
	}
	return errs.Err()
}

// Problems says what else a person should know, and no other try would change.
func (r *rules) Problems() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.outcasts.list() {
		out = append(out, o.err.Error())
	}
	return slices.Concat(out, warningsOf(r.cur), r.warnings)
}

// backoff are growing pauses.
type backoff struct {
	pause time.Duration
	next  time.Time
	err   error
}

func (b *backoff) due(now time.Time) bool { return !now.Before(b.next) }

func (b *backoff) failed(now time.Time) {
	b.pause = min(max(2*b.pause, firstTry), lastTry)
	b.next = now.Add(b.pause)
}

// kernelRules returns the rules of a namespace. Without nftables in the kernel they are in iptables.
func kernelRules(ns int) *rules {
	n, err := nft.New(ns, nft.Config{})
	if err != nil {
		n = nil
	}
	r := newRules(kernelBackends(ns, n))
	r.ns, r.nft = ns, n
	return r
}
