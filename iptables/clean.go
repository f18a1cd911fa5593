package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/calicogo/calico/dataplane"
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
		if f == dataplane.IPv6 && !d.hasIPv6() {
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
			if err := d.restoreWith(t.found[v].restore[f], e); err != nil {
				return fmt.Errorf("%s (%v): %w", commands[f], v, err)
			}
		}
		key := commands[f] + " (" + v.String() + ")"
		d.warnings[key] = warnings(key, h, nil)
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
	return d.buryWith(ctx, t)
}

// burials is how often sets that are in use are tried again, and burialPause how long is waited
// between: the kernel frees the rules of nf_tables some time after they are gone.
const (
	burials     = 20
	burialPause = 20 * time.Millisecond
)

// bury destroys the sets that are to go. Those that somebody's rules use are tried again with the next
// Sync; [Driver.Warnings] names the rules when they are next read.
func (d *Driver) bury(ctx context.Context) error { return d.buryWith(ctx, d.tools) }

func (d *Driver) buryWith(ctx context.Context, t *tools) error {
	for len(d.dying) > 0 {
		if err := d.destroy(t); err != nil {
			return err
		}
		if !d.fresh() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(burialPause):
		}
	}
	return nil
}

func (d *Driver) isDying(set string) bool {
	_, ok := d.dying[set]
	return ok
}

// fresh tells whether there are sets to destroy that were not tried often.
func (d *Driver) fresh() bool {
	for _, tries := range d.dying {
		if tries < burials {
			return true
		}
	}
	return false
}

// destroy destroys the sets that are to go, but for those that are in use.
func (d *Driver) destroy(t *tools) error {
	names := slices.Sorted(maps.Keys(d.dying))
	for len(names) > 0 {
		var lines bytes.Buffer
		for _, name := range names {
			fmt.Fprintf(&lines, "destroy %s\n", name)
		}
		c := command{ns: d.ns, path: t.ipset, args: []string{"-exist", "restore"}, stdin: lines.Bytes()}
		err := c.run(context.Background(), nil)
		done := len(names)
		if err != nil {
			_, n := lineOf(err, c.stdin)
			if n == 0 || n > len(names) || !strings.Contains(err.Error(), "in use") {
				return explainSets(err, c.stdin)
			}
			done = n - 1
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
