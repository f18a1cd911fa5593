package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// addresses are the node's own, with their subnets; one that is not valid is not there.
type addresses struct{ v4, v6 netip.Prefix }

// wantedNode is what the Node resource must say, given what it says now (nil: there is
// none). What it does not know of it keeps.
func wantedNode(now *api.Node, name string, a addresses) *api.Node {
	n := &api.Node{Meta: api.Named(api.KindNode, "", name)}
	if now != nil {
		n = api.Clone(now)
	}
	if n.Spec.BGP == nil {
		n.Spec.BGP = &api.NodeBGP{}
	}
	n.Spec.BGP.IPv4Address, n.Spec.BGP.IPv6Address = "", ""
	var own []api.NodeAddress
	for _, x := range n.Spec.Addresses {
		if x.Type != "CalicoNodeIP" {
			own = append(own, x)
		}
	}
	if a.v4.IsValid() {
		n.Spec.BGP.IPv4Address = a.v4.String()
		own = append(own, api.NodeAddress{Address: a.v4.String(), Type: "CalicoNodeIP"})
	}
	if a.v6.IsValid() {
		n.Spec.BGP.IPv6Address = a.v6.String()
		own = append(own, api.NodeAddress{Address: a.v6.String(), Type: "CalicoNodeIP"})
	}
	n.Spec.Addresses = own
	return n
}

// writeNode brings the Node resource up to date and returns it as stored.
func writeNode(ctx context.Context, s store.Store, name string, a addresses) (*api.Node, error) {
	for {
		now, err := readNode(ctx, s, name)
		if err != nil {
			return nil, err
		}
		want := wantedNode(now, name, a)
		if now != nil && reflect.DeepEqual(now.Spec, want.Spec) {
			return now, nil
		}
		op := store.Create(want)
		if now != nil {
			op = store.Replace(want)
		}
		_, err = s.Commit(ctx, []store.Op{op})
		if err == nil {
			return want, nil
		}
		if !lostRace(err) {
			return nil, fmt.Errorf("write Node %s: %w", name, err)
		}
	}
}

func readNode(ctx context.Context, s store.Store, name string) (*api.Node, error) {
	o, err := s.Get(ctx, store.Key{Kind: api.KindNode.Name, Name: name})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Node %s: %w", name, err)
	}
	return o.(*api.Node), nil
}

// lostRace tells that somebody else wrote first, so that reading again helps.
func lostRace(err error) bool {
	return errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound)
}

// conflicting names another node that says it has one of our addresses; empty if none
// does.
func conflicting(nodes []*api.Node, own *api.Node) string {
	for _, n := range nodes {
		if n.Name == own.Name || n.Spec.BGP == nil || own.Spec.BGP == nil {
			continue
		}
		if sameAddr(n.Spec.BGP.IPv4Address, own.Spec.BGP.IPv4Address) || sameAddr(n.Spec.BGP.IPv6Address, own.Spec.BGP.IPv6Address) {
			return n.Name
		}
	}
	return ""
}

func sameAddr(a, b string) bool {
	p, errP := parseAddress(a)
	q, errQ := parseAddress(b)
	return errP == nil && errQ == nil && p.Addr() == q.Addr()
}
