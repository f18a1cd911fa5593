package calc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

const kindEndpoint = "WorkloadEndpoint"

// wepKey names a stored WorkloadEndpoint.
type wepKey struct{ namespace, name string }

func wepKeyOf(o *api.WorkloadEndpoint) wepKey { return wepKey{o.Namespace, o.Name} }

func (k wepKey) storeKey() store.Key {
	return store.Key{Kind: kindEndpoint, Namespace: k.namespace, Name: k.name}
}

// compareAttachments orders attachments that claim one interface: the last is the one that
// holds it. A pod that is made again keeps its interface's name, so the later record is
// the live one.
func compareAttachments(a, b *dataplane.Attachment) int {
	return cmp.Or(
		cmp.Compare(recordRevision(a), recordRevision(b)),
		cmp.Compare(a.ID.ContainerID, b.ID.ContainerID), cmp.Compare(a.ID.IfName, b.ID.IfName))
}

func recordRevision(a *dataplane.Attachment) int64 {
	if a.Endpoint == nil {
		return 0
	}
	return api.Revision(a.Endpoint)
}

// local is an endpoint of this node, put together from its record and the datastore.
type local struct {
	member
	att   *dataplane.Attachment
	key   wepKey       // zero: the record names no WorkloadEndpoint
	addrs []netip.Addr // the record's
}

// newLocal puts together the endpoint of the record a. stored is the stored
// WorkloadEndpoint that it names, or nil.
func newLocal(a *dataplane.Attachment, stored *api.WorkloadEndpoint) *local {
	l := &local{att: a, member: member{local: true, wep: a.Endpoint}}
	if a.Endpoint != nil {
		l.key = wepKeyOf(a.Endpoint)
		if stored != nil && api.Revision(stored) >= recordRevision(a) {
			l.wep = stored
		}
	}
	for _, addr := range a.Addrs {
		if addr = addr.Unmap(); addr.IsValid() && addr.Zone() == "" && !slices.Contains(l.addrs, addr) {
			l.addrs = append(l.addrs, addr)
			l.nets.add(hostNet(addr))
		}
	}
	return l
}

// object names the endpoint in problems.
func (l *local) object() store.Key {
	if l.key == (wepKey{}) {
		return store.Key{Kind: "Attachment", Name: l.att.ID.ContainerID}
	}
	return l.key.storeKey()
}

// name is the endpoint's name for people.
func (l *local) name() string {
	if l.wep == nil {
		return l.att.ID.ContainerID
	}
	return l.wep.Namespace + "/" + cmp.Or(l.wep.Spec.Pod, l.wep.Spec.Workload, l.wep.Name)
}

// output is the endpoint in the dataplane's terms, governed by gs.
func (l *local) output(gs []governing, v6 bool) (*dataplane.Endpoint, []Problem) {
	e := &dataplane.Endpoint{Interface: l.att.Interface, Name: l.name(), MAC: l.att.MAC}
	var ps []Problem
	for _, a := range l.addrs {
		if v6 || a.Is4() {
			e.Addrs = append(e.Addrs, a)
		}
	}
	for _, name := range l.profiles() {
		if id := profileID(name); !slices.Contains(e.Profiles, id) {
			e.Profiles = append(e.Profiles, id)
		}
	}
	e.Sources, ps = l.sources(v6)
	if l.wep == nil { // who it is nobody knows, so a policy that seems to select it says nothing
		return e, ps
	}
	e.Ingress = arrange(gs, governsIngress)
	e.Egress = arrange(gs, governsEgress)
	return e, ps
}

func (l *local) sources(v6 bool) ([]netip.Prefix, []Problem) {
	if l.wep == nil {
		return nil, []Problem{{l.object(), BadAddress, "the node's record names no WorkloadEndpoint: the pod has no policy and no profile, and all its traffic is denied"}}
	}
	var nets []netip.Prefix
	var ps []Problem
	for _, s := range l.wep.Spec.AllowSpoofedSourcePrefixes {
		p, err := parseNet(s)
		if err != nil {
			ps = append(ps, Problem{l.object(), BadAddress, fmt.Sprintf("allowSpoofedSourcePrefixes: %v; it is not allowed", err)})
		} else if v6 || p.Addr().Is4() {
			nets = append(nets, p)
		}
	}
	return normalNets(nets), ps
}
