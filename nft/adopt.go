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

// Clean removes our tables, if there are any: first what has packets come to them, and when none is under way in
// them any more, the rest. The next Sync puts them back.
func (d *Driver) Clean(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, remove := range []func(*batch, *image){unhook, deleteTable} {
		for _, t := range d.tables {
			if err := ctx.Err(); err != nil {
				return errors.Join(append(errs, err)...)
			}
			t.trusted = false
			if err := d.clean(t, remove); err != nil {
				errs = append(errs, fmt.Errorf("nftables, table %s of %v: %w", tableName, t.enc.family, err))
			}
		}
	}
	return errors.Join(errs...)
}

// unhook has no packet come to the table any more. Those that are in it go on by rules that stay, and maps.
// Deleted together with its maps the table drops some that it allows: a packet goes on by the rules of before, but asks
// maps as they are now, and those that are deleted have no element. Of a flood of allowed packets 4 deletions in 10
// did so, and of 1 packet a millisecond 1 in 100.
func unhook(b *batch, im *image) {
	for _, name := range sorted(im.chains) {
		if im.chains[name].base.isBase {
			b.emptyChain(name)
			b.deleteChain(name)
		}
	}
}

func deleteTable(b *batch, _ *image) { b.deleteTable() }

// clean makes one step of Clean, if the kernel has the table and it is ours.
func (d *Driver) clean(t *table, remove func(*batch, *image)) error {
	im := newImage()
	owner := uint32(0)
	err := d.sock.get(unix.NFT_MSG_GETTABLE, t.enc.afFamily(), 0, []mdl.Attribute{tableAttr()}, func(b []byte) { owner = ownerOf(b) })
	if owner != 0 && owner != d.sock.port {
		return nil // not ours, whatever its name
	}
	if err == nil {
		err = d.sock.get(unix.NFT_MSG_GETCHAIN, t.enc.afFamily(), mdl.Dump, []mdl.Attribute{tableAttr()}, im.chain)
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAFNOSUPPORT):
		return nil
	case err != nil && !errors.Is(err, errInterrupted): // which is of others' tables
		return fmt.Errorf("read: %w", err)
	}
	b := newBatch(t.enc)
	remove(b, im)
	// The kernel keeps what was before a transaction, whosoever's, until the next, for packets that met it.
	// One that is held up for longer would find its chain empty, and be denied what all allow.
	netlink.GracePeriod()
	if err := d.transact(b); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
