package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/filter"
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
		b := newBatch(t.enc)
		b.note("delete", "table", tableName)
		b.conn.DelTable(b.table)
		if err := d.transact(b); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) {
			errs = append(errs, fmt.Errorf("nftables, table %s of %v: %w", tableName, t.enc.family, err))
		}
	}
	return errors.Join(errs...)
}
