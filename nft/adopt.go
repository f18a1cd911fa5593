package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/netlink"
)

// Adopt goes on from the compilers of another backend, which has them no more. The next Sync reads
// the kernel and brings it to what they say.
func (d *Driver) Adopt(compilers []*filter.Compiler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tables {
		t.trusted, t.refused = false, false
		if i := slices.IndexFunc(compilers, func(c *filter.Compiler) bool { return c.Family() == t.compiler.Family() }); i >= 0 {
			t.compiler = compilers[i]
		}
	}
}

// Clean removes our tables, if there are any. The next Sync puts them back.
func (d *Driver) Clean(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, t := range d.tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		t.trusted = false
		err := d.sock.get(unix.NFT_MSG_GETTABLE, t.enc.afFamily(), 0, []mdl.Attribute{tableAttr()}, func([]byte) {})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		// The kernel keeps what was before a transaction, whosoever's, until the next, for packets that met it.
		// One that is held up for longer would find its chain empty, and be denied what all allow.
		netlink.GracePeriod()
		b := newBatch(t.enc)
		b.note("delete", "table", tableName)
		b.conn.DelTable(b.table)
		if err := d.transact(b); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("nftables, table %s of %v: %w", tableName, t.enc.family, err))
		}
	}
	return errors.Join(errs...)
}
