package nft

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// manySets is a state whose one policy uses so many sets of so many addresses each.
func manySets(sets, members int) *dataplane.State {
	s := sample()
	id := dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "default", Name: "web"}
	p := &dataplane.Policy{ID: id}
	for i := range sets {
		name := dataplane.SetID(fmt.Sprintf("s:%d", i))
		m := dataplane.Members{}
		for j := range members {
			a := netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), byte(j)})
			if sets == 1 {
				a = netip.AddrFrom4([4]byte{20, byte(j >> 16), byte(j >> 8), byte(j)})
			}
			m[dataplane.Member{Prefix: netip.PrefixFrom(a, 32)}] = struct{}{}
		}
		s.Sets[name] = m
		p.Ingress = append(p.Ingress, dataplane.Rule{Action: dataplane.Allow, Protocol: dataplane.TCP, Src: dataplane.Peer{Sets: []dataplane.SetID{name}}})
	}
	s.Policies[id] = p
	return s
}

// Reading back what is right: 2,000 sets of 100 addresses.
func BenchmarkReadBack(b *testing.B) {
	d, err := New(nstest.New(b), Config{LogGroup: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	d.Update(manySets(2000, 100).Delta())
	if err := d.Sync(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		d.Resync()
		if err := d.Sync(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// A transaction of our own costs the watcher nothing: the kernel keeps back what tells of
// it, so that the watcher's buffer does not overflow, though nobody empties it.
func TestOwnTransactionsAreKeptBack(t *testing.T) {
	ns := nstest.New(t)
	d := newDriver(t, ns)
	m, err := netlink.NewTableMonitor(ns, TableName, d.Port())
	if err != nil {
		t.Fatal(err)
	}
	d.Update(manySets(1, 30_000).Delta())
	mustSync(t, d)
	delta := dataplane.NewDelta()
	delta.Sets["s:0"] = nil
	d.Update(delta)
	mustSync(t, d)
	nft(t, ns, "add chain ip calico foreign")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var told []netlink.TableChange
	_ = m.Run(ctx, func(c netlink.TableChange) {
		told = append(told, c)
		cancel()
	})
	if len(told) != 1 || told[0].Lost || told[0].Process != "nft" || len(told[0].Objects) != 1 {
		t.Errorf("told %+v, want the chain that nft added alone", told)
	}
}
