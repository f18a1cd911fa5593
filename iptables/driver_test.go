package iptables

import (
	"context"
	"net/netip"
	"testing"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
)

func sample() *dataplane.State { return difftest.Sample(dataplane.Iptables) }

// both runs a test with each variant.
func both(t *testing.T, f func(t *testing.T, v Variant)) {
	for _, v := range []Variant{Legacy, NFT} {
		nstest.RequireTool(t, "iptables-"+v.String()+"-restore")
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			f(t, v)
		})
	}
	nstest.RequireTool(t, "ipset")
}

func newDriver(t *testing.T, ns int, v Variant) *Driver {
	t.Helper()
	d, err := New(ns, Config{LogGroup: 1, Variant: v})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func mustSync(t *testing.T, d *Driver) {
	t.Helper()
	if err := d.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// quiet holds that the kernel has what d believes: reading it back writes nothing.
func quiet(t *testing.T, d *Driver) {
	t.Helper()
	before := d.Stats()
	d.Resync()
	mustSync(t, d)
	after := d.Stats()
	after.Reads = before.Reads
	if after != before {
		t.Fatalf("Sync after Resync: %+v, want %+v", after, before)
	}
}

func TestSecondSyncWritesNothing(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		ns := nstest.New(t)
		d := newDriver(t, ns, v)
		d.Update(sample().Delta())
		mustSync(t, d)
		if got := d.Stats(); got.Repairs != 2 {
			t.Fatalf("first Sync: %+v, want 2 families put in place", got)
		}
		quiet(t, d)
		was := d.Stats()
		d.Update(sample().Delta())
		mustSync(t, d)
		if now := d.Stats(); now != was {
			t.Errorf("the same state again: %+v, want %+v", now, was)
		}
		again := newDriver(t, ns, v)
		again.Update(sample().Delta())
		mustSync(t, again)
		if s := again.Stats(); s.Restores+s.SetRuns+s.Repairs != 0 {
			t.Errorf("another Driver's first Sync: %+v, want reads only", s)
		}
	})
}

// Random small changes leave the kernel with what a fresh start would.
func TestChangesInTheKernel(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		seed := difftest.Seed(t)
		g := difftest.NewGen(seed)
		d := newDriver(t, nstest.New(t), v)
		s := dataplane.NewState()
		for i := range difftest.Count(t, "IPTABLES_STEPS", 60) {
			delta := g.Delta(s)
			d.Update(delta)
			s.Apply(delta)
			if err := d.Sync(context.Background()); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			if i%5 == 0 {
				quiet(t, d)
			}
		}
		if n := d.Stats().Undone; n != 0 {
			t.Errorf("%d steps failed and were taken back", n)
		}
	})
}

// A pod that comes or goes closes nothing for the others: no table is written twice.
func TestPodsComeAndGoUnguarded(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		d := newDriver(t, nstest.New(t), v)
		d.Update(sample().Delta())
		mustSync(t, d)
		e := *sample().Endpoints["cali1"]
		e.Interface, e.Sources = "cali2", nil
		e.Addrs = []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")}
		for _, e := range []*dataplane.Endpoint{&e, nil} {
			c := dataplane.NewDelta()
			c.Endpoints["cali2"] = e
			d.Update(c)
			was := d.Stats().Restores
			mustSync(t, d)
			// IPv6's raw, which lets the known ones discover neighbours, goes with its filter
			if got := d.Stats().Restores - was; got != 2 {
				t.Errorf("%d runs of iptables-restore, want one a family", got)
			}
			quiet(t, d)
		}
	})
}
