package calc

import (
	"maps"
	"slices"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
)

// member is an endpoint or a network set as a member of the sets that rules name: its labels,
// own and by profiles, its addresses or nets, and its named ports.
type member struct {
	wep   *api.WorkloadEndpoint // a local endpoint may lack one
	set   *networkSet           // of a network set
	nets  netList               // of a local endpoint: the record's addresses
	local bool
}

// storedMember is a stored WorkloadEndpoint as a member. What is no single address in it, and
// what does not parse, is nobody's address.
func storedMember(w *api.WorkloadEndpoint) member {
	if w == nil {
		return member{}
	}
	m := member{wep: w}
	for _, n := range w.Spec.IPNetworks {
		if p, err := parseNet(n); err == nil && p.IsSingleIP() {
			m.nets.add(p)
		}
	}
	return m
}

// none tells that there is no such member.
func (m member) none() bool { return m.wep == nil && m.set == nil && !m.local }

func (m member) profiles() []string {
	switch {
	case m.set != nil:
		return m.set.profiles
	case m.wep == nil:
		return nil
	}
	return m.wep.Spec.Profiles
}

func (m member) ports() []api.EndpointPort {
	if m.wep == nil {
		return nil
	}
	return m.wep.Spec.Ports
}

// ownLabels puts the member's own labels into l, and those that Calico gives it. What
// its namespace is, and what labels that and its service account have, must not be for
// whoever writes a pod's labels to say: Calico's win, and the profiles' are left alone.
func (m member) ownLabels(l map[string]string) {
	switch {
	case m.set != nil:
		copyLabels(l, m.set.labels)
		giveNamespace(l, m.set.namespace)
	case m.wep != nil:
		copyLabels(l, m.wep.Labels)
		giveNamespace(l, m.wep.Namespace)
		if o := m.wep.Spec.Orchestrator; o != "" {
			l[api.LabelOrchestrator] = o
		}
		if s := m.wep.Spec.ServiceAccountName; s != "" {
			l[api.LabelServiceAccount] = s
		}
	}
}

func copyLabels(l, from map[string]string) {
	for k, v := range from {
		if !strings.HasPrefix(k, api.NamespaceLabelPrefix) && !strings.HasPrefix(k, api.ServiceAccountPrefix) {
			l[k] = v
		}
	}
}

// giveNamespace says which namespace it is; empty: none.
func giveNamespace(l map[string]string, namespace string) {
	if namespace == "" {
		delete(l, api.LabelNamespace)
	} else {
		l[api.LabelNamespace] = namespace
	}
}

// sameAddrs and sameLabels tell whether two members differ in what they put into sets,
// and in which sets they are.
func (m member) sameAddrs(n member) bool { return m.nets.equal(n.nets) && m.samePorts(n) }

func (m member) samePorts(n member) bool { return slices.Equal(m.ports(), n.ports()) }

func (m member) sameLabels(n member) bool {
	switch {
	case m.set != nil && n.set != nil:
		return m.set.namespace == n.set.namespace && maps.Equal(m.set.labels, n.set.labels)
	case m.wep == n.wep:
		return m.set == n.set
	}
	return m.wep != nil && n.wep != nil && m.wep.Namespace == n.wep.Namespace &&
		m.wep.Spec.Orchestrator == n.wep.Spec.Orchestrator && m.wep.Spec.ServiceAccountName == n.wep.Spec.ServiceAccountName &&
		slices.Equal(m.wep.Spec.Profiles, n.wep.Spec.Profiles) && maps.Equal(m.wep.Labels, n.wep.Labels)
}

// each calls f4 and f6 with what it adds to the set s, each member once or more.
func (m member) each(s *set, v6 bool, f4 func(packed4), f6 func(packed6)) {
	if s.port == "" {
		m.nets.each(v6, f4, f6)
		return
	}
	for _, p := range m.ports() {
		if n, ok := p.Protocol.Number(); ok && p.Name == s.port && dataplane.Protocol(n) == s.protocol {
			m.nets.eachPort(s.protocol, p.Port, v6, f4, f6)
		}
	}
}
