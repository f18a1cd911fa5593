package difftest

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/nft"
)

// TestNothingPassesMeanwhile sends packets that policy denies while the node's state changes
// all the time, as do the kernel's rules, in ways that leave them denied. None may pass.
func TestNothingPassesMeanwhile(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			r := newRestless(t, newJudge(t, b))
			r.mustPass()
			r.change(r.deny(0))
			r.nonePasses(r.run)
		})
	}
}

// restless is a node that changes all the time.
type restless struct {
	*judge
	t *testing.T
	g *Gen
}

// mustPass holds that packets pass that policy allows.
func (r *restless) mustPass() {
	r.t.Helper()
	if n := r.passed(); n != 400 {
		r.t.Fatalf("%d of 400 packets pass where policy allows them: the test would say nothing", n)
	}
}

// nonePasses holds that no packet passes while f runs.
func (r *restless) nonePasses(f func() error) {
	r.t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	for {
		if n := r.passed(); n != 0 {
			r.t.Errorf("%d denied packets passed", n)
		}
		select {
		case err := <-done:
			r.w.must(err)
			return
		default:
		}
	}
}

var restlessPolicy = dataplane.PolicyID{Kind: "NetworkPolicy", Name: "restless"}

// newRestless returns a node whose pods let everything in.
func newRestless(t *testing.T, j *judge) *restless {
	t.Helper()
	r := &restless{judge: j, t: t, g: NewGen(1)}
	j.w.must(j.anew())
	s := dataplane.NewState()
	for i := range Pods {
		s.Endpoints[Iface(i)] = restlessEndpoint(i)
	}
	s.Policies[restlessPolicy] = &dataplane.Policy{ID: restlessPolicy, Ingress: []dataplane.Rule{{Action: dataplane.Allow}}}
	s.Sets[dataplane.SetAllPools] = netsOf("10.65.0.0/16", "fd00:65::/32") // which meddle has be of another type
	r.d.Update(s.Delta())
	r.w.must(r.d.Sync(context.Background()))
	return r
}

func restlessEndpoint(i int) *dataplane.Endpoint {
	return &dataplane.Endpoint{
		Interface: Iface(i), Addrs: []netip.Addr{PodAddr(i, 4), PodAddr(i, 6)},
		Ingress: []dataplane.TierPolicies{{Tier: "t", Policies: []dataplane.PolicyID{restlessPolicy}, Default: dataplane.Deny}},
	}
}

func (r *restless) change(d *dataplane.Delta) {
	r.d.Update(d)
	r.w.must(r.d.Sync(context.Background()))
}

// deny returns one of several ways to deny the packets.
func (r *restless) deny(n int) *dataplane.Delta {
	in, out := []dataplane.SetID{"s:a"}, []dataplane.SetID{"s:b"}
	rules := [][]dataplane.Rule{
		{{Action: dataplane.Deny, Src: dataplane.Peer{Sets: in}}, {Action: dataplane.Allow}},
		{{Action: dataplane.Allow, Src: dataplane.Peer{NotSets: out}}},
		nil,
	}
	d := dataplane.NewDelta()
	d.Policies[restlessPolicy] = &dataplane.Policy{ID: restlessPolicy, Ingress: rules[n]}
	if n == 0 {
		for _, id := range []dataplane.SetID{"s:a", "s:b"} {
			d.Sets[id] = &dataplane.SetDelta{Add: slices.Collect(maps.Keys(netsOf("192.168.7.2/32", "fd00:7::2/128")))}
		}
	}
	return d
}

// run changes one thing after another, until enough has been repaired.
func (r *restless) run() error {
	wide := netsOf("192.168.0.0/16", "fd00::/16")
	for !r.repaired(r.d) {
		d := dataplane.NewDelta()
		switch r.g.IntN(10) {
		case 0:
			if err := r.meddle(r.w.node, r.d, r.g); err != nil {
				return err
			}
			r.d.Resync()
		case 1:
			s := dataplane.DefaultSettings()
			s.IPv6, s.MarkMask = r.g.odds(2), Of[uint32](r.g, 0xf, 0xff0000)
			d.Settings = &s
		case 2: // the packets' sources stay in the set, under one prefix or another
			sd := &dataplane.SetDelta{Add: slices.Collect(maps.Keys(wide))}
			if r.g.odds(2) {
				sd = &dataplane.SetDelta{Remove: sd.Add}
			}
			d.Sets[Of[dataplane.SetID](r.g, "s:a", "s:b")] = sd
		case 3:
			d.Endpoints[Iface(r.g.IntN(Pods))] = nil
		case 4:
			i := r.g.IntN(Pods)
			d.Endpoints[Iface(i)] = restlessEndpoint(i)
		default: // most often, for it is quick
			d = r.deny(r.g.IntN(3))
		}
		r.d.Update(d)
		if err := r.d.Sync(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// passed sends 400 packets and returns how many were forwarded.
func (r *restless) passed() (n int) {
	r.w.must(r.w.forget())
	g := NewGen(uint64(r.w.id))
	packets := make([]Probe, 400)
	for i := range packets {
		f := Of(g, dataplane.Families[:]...)
		packets[i].Packet = dataplane.Packet{In: Uplink, Src: outside[f][0], Protocol: dataplane.UDP, SrcPort: uint16(1000 + i), DstPort: 80}
		g.toPod(&packets[i].Packet, f)
	}
	sights, err := r.w.send(packets)
	r.w.must(err)
	for _, seen := range sights {
		if _, ok := seen.at[seenFwd]; ok {
			n++
		}
	}
	return n
}

// repairs is how often rules of nftables are repaired, and a tenth as often replaced.
const repairs = 100

func repairedNFT(d driver) bool {
	s := d.(*nft.Driver).Stats()
	return s.Repairs >= repairs && s.Replacements >= repairs/10
}

// meddleNFT adds a chain to our tables that leads nowhere, and, as long as few have been replaced, sometimes has a set be
// of a type that the rules cannot use.
func meddleNFT(ns int, d driver, g *Gen) error {
	beyondRepair := d.(*nft.Driver).Stats().Replacements < repairs/10 && g.odds(2)
	c, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		return err
	}
	for _, f := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		table := &nftables.Table{Name: "calico", Family: f}
		c.AddChain(&nftables.Chain{Name: "stray", Table: table})
		if beyondRepair {
			version := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "4", nftables.TableFamilyIPv6: "6"}[f]
			if err := retype(c, table, "cali"+version+"0all-ipam-pools"); err != nil {
				return err
			}
		}
	}
	return c.Flush()
}

// retype puts a set of another type in place of one of the masquerading rules'.
func retype(c *nftables.Conn, table *nftables.Table, name string) error {
	set := &nftables.Set{Table: table, Name: name, KeyType: nftables.TypeIFName}
	have, err := c.GetSetByName(table, name)
	if err != nil || have.KeyType.Name == set.KeyType.Name {
		return nil // the family is off
	}
	c.FlushChain(&nftables.Chain{Name: "cali-nat-POSTROUTING", Table: table})
	c.DelSet(set)
	return c.AddSet(set, nil)
}
