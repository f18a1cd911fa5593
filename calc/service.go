package calc

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

const kindSlice = "EndpointSlice"

// service names a Service of Kubernetes.
type service struct{ namespace, name string }

// serviceSet is the set of a service's addresses, or, with ports, of the triples of address,
// protocol and port that its slices say. Ids are upstream's.
func serviceSet(s service, ports bool) set {
	prefix := "svcnoport:"
	if ports {
		prefix = "svc:"
	}
	sum := sha256.Sum224(fmt.Appendf(nil, "%s%s/%s", prefix, s.namespace, s.name))
	return set{id: dataplane.SetID(prefix + base64.RawURLEncoding.EncodeToString(sum[:])), service: &s, servicePorts: ports}
}

// slice is what counts of an EndpointSlice: all its addresses, ready or not, as upstream has
// it. For a backend that is no longer ready still ends its connections.
type slice struct {
	service service
	nets    netList
	ports   []slicePort
}

type slicePort struct {
	protocol dataplane.Protocol
	port     uint16
}

// readSlice reads a stored EndpointSlice; nil: it is of no service. A port without a number
// stands for any, and matches nothing, as upstream has it.
func readSlice(o *api.EndpointSlice) (*slice, []Problem) {
	if o.ServiceName() == "" || o.AddressType == api.AddressFQDN {
		return nil, nil
	}
	s := &slice{service: service{o.Namespace, o.ServiceName()}}
	var ps []Problem
	for i, e := range o.Endpoints {
		for _, text := range e.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil || a.Zone() != "" {
				ps = append(ps, Problem{store.KeyOf(o), BadAddress, fmt.Sprintf("endpoints[%d]: %q is not an address; it is not one of the service's", i, text)})
				continue
			}
			s.nets.add(hostNet(a.Unmap()))
		}
	}
	s.nets.clip()
	for i, p := range o.Ports {
		n, ok := cmp.Or(p.Protocol, "TCP").Number()
		switch {
		case !ok || !dataplane.Protocol(n).HasPorts():
			ps = append(ps, Problem{store.KeyOf(o), BadRule, fmt.Sprintf("ports[%d]: protocol %q has no ports; no rule that names the service matches it", i, p.Protocol)})
		case p.Port != nil:
			s.ports = append(s.ports, slicePort{dataplane.Protocol(n), *p.Port})
		}
	}
	return s, ps
}

// each calls f4 and f6 with what the slice adds to the set s, which is of its service, each
// member once or more.
func (l *slice) each(s *set, v6 bool, f4 func(packed4), f6 func(packed6)) {
	if !s.servicePorts {
		l.nets.each(v6, f4, f6)
		return
	}
	for _, p := range l.ports {
		l.nets.eachPort(p.protocol, p.port, v6, f4, f6)
	}
}

// serviceTables are the slices by service, and the sets of services that are in use.
type serviceTables struct {
	slices multimap[service, *slice]
	sets   multimap[service, *liveSet]
}

func newServiceTables() serviceTables {
	return serviceTables{slices: multimap[service, *slice]{}, sets: multimap[service, *liveSet]{}}
}

// settleServices puts into the sets in use what slices that came or went say.
func (g *Graph) settleServices() {
	for k, was := range g.slices.before {
		is := g.slices.rows[k]
		if was == is && g.v6 == g.wasV6 {
			continue
		}
		if was != nil {
			g.services.slices.remove(was.service, was)
			for s := range g.services.sets[was.service] {
				g.putSlice(s, was, g.wasV6, false)
			}
		}
		if is != nil {
			g.services.slices.add(is.service, is)
			for s := range g.services.sets[is.service] {
				g.putSlice(s, is, g.v6, true)
			}
		}
	}
	g.slices.settled()
}

// useService begins or ends to keep the set of a service.
func (g *Graph) useService(s *liveSet, in bool) {
	if !in {
		g.services.sets.remove(*s.service, s)
		return
	}
	g.services.sets.add(*s.service, s)
	for l := range g.services.slices[*s.service] {
		g.putSlice(s, l, g.v6, true)
	}
}

func (g *Graph) putSlice(s *liveSet, l *slice, v6, in bool) {
	g.rules.touchSet(s)
	l.each(&s.set, v6, func(x packed4) { s.v4.note(x, in) }, func(x packed6) { s.v6.note(x, in) })
}

// services adds the set of the service that e names to p: as a source it is known by its
// addresses, as a destination by its addresses with their ports.
func (b *ruleBuilder) services(p *dataplane.Peer, e *api.EntityRule, side string) {
	name := service{cmp.Or(e.Services.Namespace, b.namespace), e.Services.Name}
	if name.name == "" || name.namespace == "" {
		b.fail(BadRule, "%s.services: want the name of a service and, in a policy without a namespace, its namespace", side)
		return
	}
	if len(e.Nets)+len(e.NotNets) > 0 || e.Selector != "" || e.NotSelector != "" || e.NamespaceSelector != "" || e.ServiceAccounts != nil {
		b.fail(BadRule, "%s.services cannot be combined with nets or selectors", side)
		return
	}
	if side == "source" {
		p.Sets = append(p.Sets, b.set(serviceSet(name, false)))
		return
	}
	if len(e.Ports)+len(e.NotPorts) > 0 {
		b.fail(BadRule, "%s.services cannot be combined with ports: the service has its own", side)
		return
	}
	p.PortSets = append(slices.Clip(p.PortSets), b.set(serviceSet(name, true)))
}
