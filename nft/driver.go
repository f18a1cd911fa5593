package nft

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// Config is what a Driver may be told.
type Config struct {
	// LogGroup is the NFLOG group of the Log action; 0: the kernel's log, which does not
	// show network namespaces other than the first.
	LogGroup uint16
}

// Stats counts what a Driver has done since it was made.
type Stats struct {
	Transactions int // sent to the kernel and taken by it
	Messages     int // in those
	Reads        int // of a whole table
	Repairs      int // of a table in which something was not as it must be
	Replacements int // of a whole table, because it was not there, or nothing less helps
	Waits        int // for packets that were under way
}

// Driver holds the policy of a State in nftables, in one network namespace. It is a
// [dataplane.Driver].
type Driver struct {
	ns  int
	cfg Config

	mu     sync.Mutex
	sock   *socket
	tables []*table
	stats  Stats
	grace  *grace
}

var _ dataplane.Driver = (*Driver)(nil)

// table is the table of one family.
type table struct {
	enc      *encoder
	compiler *filter.Compiler
	trusted  bool // the kernel holds the compiler's program
	refused  bool // the kernel did not take the last repair
}

// New returns a Driver for the network namespace of descriptor ns, or netlink.Current. It
// fails if the kernel has no nftables.
func New(ns int, cfg Config) (*Driver, error) {
	s, err := openSocket(ns)
	if err != nil {
		return nil, err
	}
	err = s.get(unix.NFT_MSG_GETGEN, 0, 0, nil, func([]byte) {})
	if err != nil {
		s.close()
		return nil, probeError(err)
	}
	d := &Driver{ns: ns, cfg: cfg, sock: s, grace: newGrace()}
	for _, f := range dataplane.Families {
		d.tables = append(d.tables, &table{
			enc:      newEncoder(f, cfg.LogGroup),
			compiler: filter.NewCompiler(f),
		})
	}
	return d, nil
}

// probeError says why nftables does not answer.
func probeError(err error) error {
	if errors.Is(err, unix.EPERM) {
		return errors.New("nftables: not permitted; run as root, or with CAP_NET_ADMIN")
	}
	return fmt.Errorf("nftables: the kernel lacks it (CONFIG_NF_TABLES, module nf_tables): %w", err)
}

// Close frees the socket. The kernel's tables stay.
func (d *Driver) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sock.close()
}

// Port is the port of the netlink socket by which the Driver writes: notifications bear the
// port of the one who made the change.
func (d *Driver) Port() uint32 { return d.sock.port }

// Stats returns the counts so far.
func (d *Driver) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	stats := d.stats
	stats.Waits = d.grace.waits
	return stats
}

// Update notes a change of the wanted state.
func (d *Driver) Update(delta *dataplane.Delta) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tables {
		t.compiler.Update(delta)
	}
}

// Resync makes the next Sync read the tables and repair what differs.
func (d *Driver) Resync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tables {
		t.trusted = false
	}
}

// Sync brings the kernel to the wanted state, in the steps of [filter.Changes.Steps]: first what
// closes and the rules, of both families, and then what opens. A table that is replaced opens to
// new flows in a second transaction. After an
// error the family's table is as the last transaction that was taken left it, which lets
// nothing more through than before, and the next Sync reads it back.
func (d *Driver) Sync(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	try := func(t *table, f func() error) {
		if err := f(); err != nil {
			errs = append(errs, fmt.Errorf("nftables, table %s of %v: %w", tableName, t.enc.family, err))
		}
	}
	opening := map[*table]*filter.Changes{}
	for _, t := range d.tables {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		try(t, func() (err error) {
			opening[t], err = d.sync(t)
			return err
		})
	}
	for _, t := range d.tables {
		if step := opening[t]; step != nil {
			try(t, func() error { return d.step(t, step) })
		}
	}
	return errors.Join(errs...)
}

// sync returns what is left to be done when the other tables have their rules; nil: nothing.
func (d *Driver) sync(t *table) (opening *filter.Changes, err error) {
	if !t.trusted {
		r := d.sock.startReading(t.enc.afFamily()) // meanwhile the program is made
		if err := t.compiler.Settle(); err != nil {
			_, _ = r.wait()
			return nil, err
		}
		return nil, d.repair(t, r)
	}
	ch, err := t.compiler.Changes()
	if err != nil {
		return nil, err
	}
	for _, step := range ch.Steps() {
		if step.Opens() {
			return step, nil // which is the last
		}
		if err := d.step(t, step); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// step makes a step's changes.
func (d *Driver) step(t *table, step *filter.Changes) error {
	err := d.send(t, step, false)
	if err != nil {
		t.trusted = false
	}
	return err
}

// repair reads the table and mends what is not as it must be, and no more. A table that is
// not there, or that took no repair, is put in place whole.
func (d *Driver) repair(t *table, r *reading) error {
	drift, err := d.sock.driftFrom(r, t.enc, t.compiler.Program())
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	d.stats.Reads++
	switch {
	case drift.none():
	case drift.whole == noTable:
		if err := d.create(t); err != nil {
			return err
		}
		d.stats.Replacements++
	case drift.whole != "" || t.refused || drift.under():
		if err := d.replace(t); err != nil {
			return err
		}
		d.stats.Replacements++
	default:
		if err := d.mend(t, drift); err != nil {
			var r *refusal
			t.refused = errors.As(err, &r)
			return err
		}
		d.stats.Repairs++
	}
	t.trusted, t.refused = true, false
	return nil
}

// create makes the table, and so that its sets are full before there are rules: no flow that the
// program allows is denied meanwhile, which another backend may have allowed so far.
func (d *Driver) create(t *table) error {
	anew := true
	for _, step := range filter.NewProgram(t.enc.family).Diff(t.compiler.Program()).Steps() {
		if err := d.send(t, step, anew); err != nil {
			return err
		}
		anew = false
	}
	return nil
}

// replace puts the program in place of whatever there is.
func (d *Driver) replace(t *table) error {
	first, second := t.compiler.Guarded()
	d.grace.beforeAll() // those under way would find the chains empty that they come to
	if err := d.send(t, first, true); err != nil {
		return err
	}
	return d.send(t, second, false)
}

// mend takes the kernel's table from where it has drifted to the program.
func (d *Driver) mend(t *table, drift *drift) error {
	if drift.flags { // with nothing else: the kernel takes no base chains together with it
		b := newBatch(t.enc)
		b.wake()
		if err := d.transact(b); err != nil {
			return err
		}
	}
	if len(drift.refill) > 0 {
		b := newBatch(t.enc)
		b.refill(t.compiler.Program(), drift.refill)
		if err := d.transact(b); err != nil {
			return err
		}
	}
	for _, step := range drift.changes.Steps() {
		if step.Opens() {
			d.grace.beforeOpening()
		}
		b := newBatch(t.enc)
		b.drift = drift
		b.apply(step)
		if err := d.transact(b); err != nil {
			return err
		}
	}
	if len(drift.wipe) > 0 { // and who can say what these held closed
		d.grace.beforeOpening()
	}
	b := newBatch(t.enc)
	b.drift = drift
	b.mend()
	return d.transact(b)
}

// send makes the changes in one transaction; anew: of a table that is emptied first.
func (d *Driver) send(t *table, ch *filter.Changes, anew bool) error {
	if ch.Empty() && !anew {
		return nil
	}
	if ch.Opens() {
		d.grace.beforeOpening()
	}
	b := newBatch(t.enc)
	if anew {
		b.clearTable()
	}
	b.apply(ch)
	return d.transact(b)
}

func (d *Driver) transact(b *batch) error {
	msgs, err := b.messages()
	if err != nil {
		return err
	}
	if len(msgs) == 0 {
		return nil
	}
	d.grace.before(b.enc.family, b.standing)
	err = d.sock.transact(msgs)
	d.grace.note(b.enc.family, b.ruled, b.standing)
	if err != nil {
		return b.explain(err)
	}
	d.stats.Transactions++
	d.stats.Messages += len(msgs)
	return nil
}
