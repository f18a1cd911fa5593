package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/nft"
)

const (
	readSets    = 2000
	readMembers = 100
)

// runReadback measures a read-back of rules that are right already, in this process.
func runReadback(ctx context.Context, b *bench) error {
	n := got(newNS())
	b.cleanup(n.close)
	d := got(nft.New(int(n.Fd()), nft.Config{}))
	b.cleanup(d.Close)
	d.Update(readState().Delta())
	must(d.Sync(ctx))
	tables := d.Stats().Replacements
	var ours, floor samples
	for range b.n(5, 20) {
		d.Resync()
		start := time.Now()
		must(d.Sync(ctx))
		ours.since(start)
		floor.took(bareRead(n))
	}
	if d.Stats().Replacements != tables {
		return errors.New("a table that is right was replaced")
	}
	b.report(result{What: fmt.Sprintf("read-back of %d sets of %d, right already", readSets, readMembers), Unit: "ms", Ours: ours, Floor: floor, Aim: "500 ms"})
	return nil
}

// bareRead reads all rules, sets and their elements, and looks at nothing.
func bareRead(n *netns) (took time.Duration) {
	must(netlink.Do(int(n.Fd()), func() error {
		s, err := openNFNetlink()
		if err != nil {
			return err
		}
		defer s.close()
		start := time.Now()
		names, err := s.read()
		for _, name := range names {
			err = errors.Join(err, s.dump(readElements("calico", name), func([]byte) {}))
		}
		took = time.Since(start)
		return err
	}))
	return took
}

// readState has a policy for each set, all for one endpoint.
func readState() *dataplane.State {
	s := dataplane.NewState()
	tier := dataplane.TierPolicies{Tier: "default", Default: dataplane.Deny}
	for i := range readSets {
		id := dataplane.SetID(fmt.Sprint("set", i))
		s.Sets[id] = dataplane.Members{}
		for _, a := range addresses(i, readMembers) {
			s.Sets[id][dataplane.Member{Prefix: netip.PrefixFrom(a, 32)}] = struct{}{}
		}
		p := &dataplane.Policy{ID: dataplane.PolicyID{Kind: "GlobalNetworkPolicy", Name: fmt.Sprint("p", i)}}
		p.Ingress = []dataplane.Rule{{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{id}}}}
		s.Policies[p.ID] = p
		tier.Policies = append(tier.Policies, p.ID)
	}
	s.Endpoints["cali0"] = &dataplane.Endpoint{
		Interface: "cali0", Name: "default/pod", Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.1")}, Ingress: []dataplane.TierPolicies{tier},
	}
	return s
}

// addresses are n that no other i has.
func addresses(i, n int) (all []netip.Addr) {
	for k := range n {
		x := i*n + k
		all = append(all, netip.AddrFrom4([4]byte{11, byte(x >> 16), byte(x >> 8), byte(x)}))
	}
	return all
}
