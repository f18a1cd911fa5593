package conntrack

import (
	"errors"
	"net/netip"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/netlink"
)

// judge says of flows whether the rules deny them.
type judge struct {
	owners   *owners
	programs map[dataplane.Family]*filter.Program
	host     map[netip.Addr]bool // the host's own addresses

	// routes are the devices by which packets leave for addresses that may be behind a pod, as far as they are known; lookUp
	// finds another.
	routes map[netip.Addr]string
	lookUp func(netip.Addr) (string, error)
	err    error // of lookUp
}

// newJudge returns one that goes by what is held now.
func (p *Pass) newJudge() (*judge, error) {
	j := &judge{owners: p.d.owners, programs: map[dataplane.Family]*filter.Program{}, host: p.host, routes: p.routes, lookUp: p.d.h.DeviceTo}
	for _, c := range p.d.compilers() {
		if program := c.Program(); len(program.Chains) > 0 { // it has compiled
			j.programs[program.Family] = program
		}
	}
	if len(j.programs) == 0 {
		return nil, errors.New("live flows: there are no rules yet to judge them by")
	}
	return j, nil
}

// elsewhere stands for the device of what comes from or goes to neither a pod of this node nor the
// node itself. No device is called so, and none of a pod.
const elsewhere = "/"

// denies tells whether the flow is denied, and whether it is ours to judge at all: one of its ends
// is a pod of this node.
func (j *judge) denies(f *netlink.Flow) (denied, ours bool) {
	in, fromPod := j.device(f.Source())
	out, toPod := j.device(f.Destination())
	program := j.programs[dataplane.FamilyOf(f.Source())]
	if !fromPod && !toPod || program == nil {
		return false, false
	}
	p := dataplane.Packet{
		Src: f.Source(), Dst: f.Destination(), Protocol: dataplane.Protocol(f.Original.Protocol),
		SrcPort: f.Original.SrcPort, DstPort: f.Reply.SrcPort, Type: f.Original.Type, Code: f.Original.Code,
	}
	for _, p.In = range in {
		for _, p.Out = range out {
			if v := program.Verdict(p); v != dataplane.Accept && v != dataplane.Return {
				return true, true
			}
		}
	}
	return false, true
}

// device returns the devices that packets with this end may pass: those of the pods that have it,
// "" if it is the host's.
func (j *judge) device(a netip.Addr) (devices []string, pod bool) {
	pods := j.owners.byAddr[a]
	switch {
	case len(pods) > 0:
		for _, id := range pods {
			devices = append(devices, string(id))
		}
		return devices, true
	case j.host[a] || a.IsLoopback() || a.IsMulticast() || a == broadcast:
		return []string{""}, false
	case j.owners.mayHave(a):
		if id := j.route(a); j.owners.further[dataplane.Interface(id)] != nil {
			return []string{id}, true
		}
	}
	return []string{elsewhere}, false
}

// route is the device by which packets leave for the address. Those of the flow that go there pass it, and
// those that come from there most likely.
func (j *judge) route(a netip.Addr) string {
	id, known := j.routes[a]
	if !known && j.err == nil {
		if id, j.err = j.lookUp(a); j.err == nil {
			j.routes[a] = id
		}
	}
	return id
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
