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

// newNetworkSet reads a NetworkSet or GlobalNetworkSet with the given nets. A net that does not
// parse is left out: no rule can know it.
func newNetworkSet(o api.Object, nets []string) (*networkSet, []Problem) {
	s := &networkSet{namespace: o.GetNamespace(), labels: o.GetLabels()}
	if s.namespace != "" {
		s.profiles = []string{api.NamespaceProfile + s.namespace}
	}
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
