package calc

import (
	"fmt"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

const (
	kindNetworkSet       = "NetworkSet"
	kindGlobalNetworkSet = "GlobalNetworkSet"
)

// networkSet is what counts of a NetworkSet or GlobalNetworkSet.
type networkSet struct {
	namespace string // empty: a global one
	labels    map[string]string
	profiles  []string // whose labels it inherits: that of its namespace
	nets      netList
}

// readNetworkSet reads a NetworkSet or GlobalNetworkSet; nil if o is neither.
func readNetworkSet(o api.Object) (*networkSet, []Problem) {
	switch o := o.(type) {
	case *api.NetworkSet:
		return newNetworkSet(o, o.Spec.Nets)
	case *api.GlobalNetworkSet:
		return newNetworkSet(o, o.Spec.Nets)
	}
	return nil, nil
}

// newNetworkSet reads a network set that holds the given nets. One that does not parse is left
// out.
func newNetworkSet(o api.Object, nets []string) (*networkSet, []Problem) {
	s := &networkSet{namespace: o.GetNamespace(), labels: o.GetLabels()}
	if s.namespace != "" {
		s.profiles = []string{api.NamespaceProfile + s.namespace}
	}
	s.nets.expect(len(nets))
	var ps []Problem
	for i, n := range nets {
		p, err := parseNet(n)
		if err != nil {
			ps = append(ps, Problem{store.KeyOf(o), BadAddress, fmt.Sprintf("nets[%d]: %v; it is left out of the sets that rules use", i, err)})
			continue
		}
		s.nets.add(p)
	}
	s.nets.clip()
	return s, ps
}

// asMember is the set as a member of sets; none if s is nil.
func (s *networkSet) asMember() member {
	if s == nil {
		return member{}
	}
	return member{set: s, nets: s.nets}
}
