package nft

import (
	"context"
	"errors"
	"fmt"
	"sync"

	mdl "github.com/mdlayher/netlink"
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
	Replacements int // of a whole table, because it was not as it must be
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
}

var _ dataplane.Driver = (*Driver)(nil)

// table is the table of one family.
type table struct {
	enc      *encoder
	compiler *filter.Compiler
	trusted  bool // the kernel holds the compiler's program
}

// New returns a Driver for the network namespace of descriptor ns, or netlink.Current. It
// fails if the kernel has no nftables.
func New(ns int, cfg Config) (*Driver, error) {
	s, err := openSocket(ns)
	if err != nil {
		return nil, err
	}
	err = s.get(unix.NFT_MSG_GETGEN, 0, 0, nil, func(*mdl.AttributeDecoder) error { return nil })
	if err != nil {
		s.close()
		return nil, probeError(err)
	}
	d := &Driver{ns: ns, cfg: cfg, sock: s}
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

// Stats returns the counts so far.
func (d *Driver) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
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

// Sync brings the kernel to the wanted state: a family's new sets in one transaction, the
// rest in the next; a table that is replaced opens to new flows in a second one. After an
// error the family's table is as the last transaction that was taken left it, which lets
// nothing more through than before, and the next Sync reads it back.
func (d *Driver) Sync(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, t := range d.tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.sync(t); err != nil {
			errs = append(errs, fmt.Errorf("nftables, table %s of %v: %w", tableName, t.enc.family, err))
		}
	}
	return errors.Join(errs...)
}

func (d *Driver) sync(t *table) error {
	ch, err := t.compiler.Changes()
	if err != nil {
		return err
	}
	if !t.trusted {
		return d.repair(t)
	}
	for _, step := range ch.Steps() {
		if err := d.send(t, step, false); err != nil {
			t.trusted = false
			return err
		}
	}
	return nil
}

// repair reads the table and replaces it whole if it is not as it must be, or if it cannot
// be read because someone keeps changing tables.
func (d *Driver) repair(t *table) error {
	same, err := d.same(t)
	if err != nil {
		return err
	}
	if !same {
		first, second := t.compiler.Guarded()
		if err := d.send(t, first, true); err != nil {
			return err
		}
		if err := d.send(t, second, false); err != nil {
			return err
		}
		d.stats.Replacements++
	}
	t.trusted = true
	return nil
}

// same tells whether the kernel's table is known to be as it must be.
func (d *Driver) same(t *table) (bool, error) {
	have, err := d.sock.read(t.enc.afFamily())
	if errors.Is(err, errInterrupted) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read: %w", err)
	}
	d.stats.Reads++
	if !have.exists {
		return false, nil
	}
	want, err := t.enc.imageOf(t.compiler.Program())
	if err != nil {
		return false, err
	}
	return want.differs(have) == "", nil
}

// send makes the changes in one transaction; anew: of a table that is emptied first.
func (d *Driver) send(t *table, ch *filter.Changes, anew bool) error {
	if ch.Empty() && !anew {
		return nil
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
	if err := d.sock.transact(msgs); err != nil {
		return b.explain(err)
	}
	d.stats.Transactions++
	d.stats.Messages += len(msgs)
	return nil
}
