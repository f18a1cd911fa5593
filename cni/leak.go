package cni

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
)

// What a pod leaves behind without a record (a directory that was lost, a commit that
// arrived late, another Calico that ran here before) nothing else takes away.
//
// The order of an ADD (record, commit, device) and of a DEL (record, device, commit, no
// record) makes a look at the three conclusive: a device or an address that was seen
// before the records were read, and that no record explains, belongs to no call of this
// agent. Another Calico's plugin may be at work, though: what is removed was seen by two
// looks in a row.

// look is what was seen of a node: devices first, then the datastore's view, then records.
type look struct {
	prefix   string
	networks map[string]bool // whose pods are ours
	devices  map[string]vnl.Link
	named    map[string]bool // devices that were some pod's in a look of this process
	contents
	records []*Record
}

func (s *Server) look(v *Inventory) (*look, error) {
	links, err := s.host.Links()
	if err != nil {
		return nil, fmt.Errorf("list the node's devices: %w", err)
	}
	l := &look{prefix: s.cfg.Prefix, networks: s.seen.names(), devices: map[string]vnl.Link{}, named: map[string]bool{}}
	for _, link := range links {
		l.devices[link.Attrs().Name] = link
	}
	l.contents = v.contents()
	l.records = s.cfg.Records.All()
	for _, r := range l.records {
		l.networks[strings.TrimSuffix(r.Handle, "."+r.ID.ContainerID)] = true
	}
	s.seen.name(l)
	return l, nil
}

// seen is what this process has learned of pods that are ours, so that what is another's is
// not taken for a leak. It is safe for concurrent use.
type seen struct {
	mu       sync.Mutex
	networks map[string]bool // by name; of ADDs
	devices  map[string]bool // that are here and were some pod's
}

func (x *seen) network(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.networks[name] = true
}

func (x *seen) names() map[string]bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.networks)
}

// name notes which of the devices of a look are some pod's, and tells it those that were.
func (x *seen) name(l *look) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for name := range l.devices {
		if x.devices[name] || isPodDevice(l.prefix, l.devices[name]) && l.somePods(name) {
			l.named[name] = true
		}
	}
	x.devices = maps.Clone(l.named)
}

// leak is something that nobody has any more: an address, an endpoint or a device.
type leak struct {
	key            string // and description
	namespace, pod string // empty: not known
	addrs          []ipam.Allocation
	endpoint       *api.WorkloadEndpoint
	device         vnl.Link
}

// leaks lists what no record explains and no living pod can have.
func (l *look) leaks() []leak {
	all := l.leakedAddrs()
	for _, e := range l.endpoints {
		if l.leakedEndpoint(e) {
			all = append(all, leak{key: fmt.Sprintf("endpoint %v", store.KeyOf(e)), namespace: e.Namespace, pod: e.Spec.Pod, endpoint: e})
		}
	}
	for name, link := range l.devices {
		if l.leakedDevice(name) {
			all = append(all, leak{key: fmt.Sprintf("device %s (index %d)", name, link.Attrs().Index), device: link})
		}
	}
	slices.SortFunc(all, func(x, y leak) int { return strings.Compare(x.key, y.key) })
	return all
}

// leakedAddrs lists the addresses that no container has, one leak a handle.
func (l *look) leakedAddrs() []leak {
	byHandle := map[string]*leak{}
	for _, h := range l.holdings {
		if !l.leakedHolding(h) {
			continue
		}
		k := byHandle[h.Handle]
		if k == nil {
			k = &leak{namespace: h.Attrs[api.AttrNamespace], pod: h.Attrs[api.AttrPod]}
			byHandle[h.Handle] = k
		}
		k.addrs = append(k.addrs, h.Allocation)
	}
	var all []leak
	for handle, k := range byHandle {
		slices.SortFunc(k.addrs, func(x, y ipam.Allocation) int { return x.Addr.Compare(y.Addr) })
		k.key = fmt.Sprintf("addresses %v of %s", addrsOf(k.addrs), handle)
		all = append(all, *k)
	}
	return all
}

// leakedHolding: an address of a pod of ours, with no record, and either the pod has no
// device here or the device is another container's. Pods that another plugin wired and gave an
// address of Calico's IPAM are of networks of their own.
func (l *look) leakedHolding(h ipam.Holding) bool {
	namespace, pod := h.Attrs[api.AttrNamespace], h.Attrs[api.AttrPod]
	if pod == "" || h.Attrs[api.AttrType] != "" || !l.ofOurs(h.Handle) { // a tunnel's, or not ours
		return false
	}
	if slices.ContainsFunc(l.endpoints, func(e *api.WorkloadEndpoint) bool { // whatever its device is called
		return e.Namespace == namespace && e.Spec.Pod == pod && l.unexplained(e.Spec.InterfaceName)
	}) {
		return false
	}
	if slices.ContainsFunc(l.records, func(r *Record) bool { return r.Handle == h.Handle }) {
		return false
	}
	return !l.unexplained(string(HostInterface(l.prefix, namespace, pod)))
}

// ofOurs tells whether a handle is of one of our networks.
func (l *look) ofOurs(handle string) bool {
	for name := range l.networks {
		if strings.HasPrefix(handle, name+".") {
			return true
		}
	}
	return false
}

// leakedEndpoint: a pod's endpoint, with no record, and either its device is not here or
// it is another container's.
func (l *look) leakedEndpoint(e *api.WorkloadEndpoint) bool {
	if e.Spec.Orchestrator != "k8s" || e.Spec.InterfaceName == "" {
		return false
	}
	if slices.ContainsFunc(l.records, func(r *Record) bool {
		return r.Namespace == e.Namespace && r.Pod == e.Spec.Pod && r.ID.IfName == e.Spec.Endpoint
	}) {
		return false
	}
	return !l.unexplained(e.Spec.InterfaceName)
}

// unexplained: a device that is here and has no record. A pod may live behind it.
func (l *look) unexplained(device string) bool {
	return l.devices[device] != nil && !l.recorded(device)
}

func (l *look) recorded(device string) bool {
	return slices.ContainsFunc(l.records, func(r *Record) bool { return string(r.Interface) == device })
}

// leakedDevice: a pod's device that no pod has any more. One that was nobody's in every look
// is not ours to remove: in another datastore, or under another name of this node, a pod may
// live behind it.
func (l *look) leakedDevice(name string) bool { return l.named[name] && !l.somePods(name) }

// strangers are devices that look like a pod's and never were one's.
func (l *look) strangers() (foreign []error) {
	for name, link := range l.devices {
		if isPodDevice(l.prefix, link) && !l.named[name] {
			foreign = append(foreign, fmt.Errorf("device %s is called like a pod's, and no pod of this node in the datastore has it, so that its traffic is dropped; if nobody uses it, remove it: ip link delete %s", name, name))
		}
	}
	slices.SortFunc(foreign, func(x, y error) int { return strings.Compare(x.Error(), y.Error()) })
	return foreign
}

// somePods tells whether a record, an endpoint or an address says that a pod has a device of
// that name.
func (l *look) somePods(name string) bool {
	return l.recorded(name) ||
		slices.ContainsFunc(l.endpoints, func(e *api.WorkloadEndpoint) bool { return e.Spec.InterfaceName == name }) ||
		slices.ContainsFunc(l.holdings, func(h ipam.Holding) bool {
			return string(HostInterface(l.prefix, h.Attrs[api.AttrNamespace], h.Attrs[api.AttrPod])) == name
		})
}

// isPodDevice tells whether a device has the kind and the name of a pod's; see
// [HostInterface].
func isPodDevice(prefix string, l vnl.Link) bool {
	hash, ok := strings.CutPrefix(l.Attrs().Name, prefix)
	return ok && l.Type() == "veth" && len(hash) == min(11, maxName-len(prefix)) && strings.Trim(hash, "0123456789abcdef") == ""
}

// podDevice tells whether the node has a pod's device of that name.
func (s *Server) podDevice(name string) bool {
	l, err := s.host.LinkByName(name)
	return err == nil && isPodDevice(s.cfg.Prefix, l)
}

func addrsOf(as []ipam.Allocation) []string {
	var texts []string
	for _, a := range as {
		texts = append(texts, a.Addr.String())
	}
	return texts
}

// Findings is what a Sweep found and left.
type Findings struct {
	// Again: something was seen that the next Sweep will remove if it sees it as well.
	Again bool
	// Foreign are pods that live here without a record and cannot be given one, and devices
	// that are nobody's.
	Foreign []error
}

// Sweep removes what leaks: addresses that the datastore attributes to this node,
// endpoints of it and devices on it that belong to no pod. A pod that lives without a
// record gets one; see [Server.Adopt]. It acts on what the Sweep before saw as well, and
// judges again while no call for the pod runs. v must show the datastore as it is.
func (s *Server) Sweep(ctx context.Context, v *Inventory) (Findings, error) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	var f Findings
	if n, err := s.cfg.Records.Restore(); n > 0 || err != nil {
		s.cfg.Log.Warn("files of CNI records were missing and are written again", "files", n, "error", err)
	}
	l, err := s.look(v)
	if err != nil || !l.inSync {
		return f, err
	}
	before := s.suspects
	s.suspects = map[string]bool{}
	f.Foreign = s.adoptAll(l, func(key string) bool {
		s.suspects[key] = true
		f.Again = f.Again || !before[key]
		return before[key]
	})
	f.Foreign = append(f.Foreign, l.strangers()...)
	var errs []error
	for _, k := range l.leaks() {
		s.suspects[k.key] = true
		if !before[k.key] {
			f.Again = true
			continue
		}
		errs = append(errs, s.sweepOne(ctx, v, k))
	}
	return f, errors.Join(errs...)
}

// sweepOne removes a leak if it still is one while no call for its pod runs.
func (s *Server) sweepOne(ctx context.Context, v *Inventory, k leak) error {
	if k.pod != "" {
		defer s.pods.lock(podKey(k.namespace, k.pod))()
	}
	l, err := s.look(v)
	if err != nil {
		return err
	}
	all := l.leaks()
	i := slices.IndexFunc(all, func(x leak) bool { return x.key == k.key })
	if i < 0 {
		return nil
	}
	if err := s.removeLeak(ctx, all[i]); err != nil {
		return fmt.Errorf("remove the leaked %s: %w", k.key, err)
	}
	s.cfg.Log.Info("a leak was removed", "what", k.key, "namespace", k.namespace, "pod", k.pod)
	return nil
}

// removeLeak removes exactly what was seen: an address by its sequence number, an endpoint
// by its revision, a device by its index.
func (s *Server) removeLeak(ctx context.Context, k leak) error {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	switch {
	case k.addrs != nil:
		_, err := s.cfg.Allocator.ReleaseAllocations(ctx, k.addrs, time.Now())
		return err
	case k.endpoint != nil:
		_, err := s.cfg.Store.Commit(ctx, []store.Op{store.Delete(store.KeyOf(k.endpoint), api.Revision(k.endpoint))})
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	}
	err := s.host.LinkDel(k.device)
	if netlink.IsNoLink(err) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Adopt makes the record of each pod that lives here without one: wired by another Calico,
// or its record was lost. To be called once the datastore's view is complete and before
// the first rules are made of it: what has no record has no rules, and is dropped. Pods
// that cannot be adopted are the errors.
func (s *Server) Adopt(v *Inventory) ([]error, error) {
	l, err := s.look(v)
	if err != nil {
		return nil, err
	}
	return s.adoptAll(l, func(string) bool { return true }), nil
}

func (s *Server) adoptAll(l *look, now func(key string) bool) (foreign []error) {
	slices.SortFunc(l.endpoints, func(x, y *api.WorkloadEndpoint) int {
		return cmp.Or(strings.Compare(x.Namespace, y.Namespace), strings.Compare(x.Name, y.Name))
	})
	for _, e := range l.endpoints {
		if e.Spec.Orchestrator != "k8s" || !l.unexplained(e.Spec.InterfaceName) {
			continue
		}
		rec, err := l.adopted(e)
		if err == nil && now("pod "+podKey(e.Namespace, e.Spec.Pod)) {
			err = s.adopt(rec)
		}
		if err != nil {
			foreign = append(foreign, fmt.Errorf("pod %s on %s has no record and cannot be given one, so that its traffic is dropped; delete the pod: %w",
				podKey(e.Namespace, e.Spec.Pod), e.Spec.InterfaceName, err))
		}
	}
	return foreign
}

// defaultNetwork is the network's name in the configurations of Calico, of which a handle
// is made.
const defaultNetwork = "k8s-pod-network"

// adopted is the record of a pod that has an endpoint and a device.
func (l *look) adopted(e *api.WorkloadEndpoint) (*Record, error) {
	link := l.devices[e.Spec.InterfaceName]
	if !isPodDevice(l.prefix, link) {
		return nil, fmt.Errorf("its device is a %s, and pods' devices here are called %s and a hash", link.Type(), l.prefix)
	}
	rec := &Record{
		ID: dataplane.AttachmentID{ContainerID: e.Spec.ContainerID, IfName: e.Spec.Endpoint}, State: Attached,
		Handle: defaultNetwork + "." + e.Spec.ContainerID, Namespace: e.Namespace, Pod: e.Spec.Pod,
		Interface: dataplane.Interface(e.Spec.InterfaceName), MAC: e.Spec.MAC, MTU: link.Attrs().MTU, Endpoint: e,
	}
	if err := wire.CheckID(rec.ID.ContainerID, rec.ID.IfName); err != nil {
		return nil, err
	}
	return rec, l.adoptAddrs(rec, e)
}

// adoptAddrs gives the record the endpoint's addresses, and the handle that holds them.
func (l *look) adoptAddrs(rec *Record, e *api.WorkloadEndpoint) error {
	holders := map[string]bool{}
	for _, text := range e.Spec.IPNetworks {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		a := p.Addr()
		rec.Addrs = append(rec.Addrs, a)
		for _, h := range l.holdings {
			if h.Addr != a {
				continue
			}
			if h.Attrs[api.AttrNamespace] != e.Namespace || h.Attrs[api.AttrPod] != e.Spec.Pod {
				return fmt.Errorf("its address %v is held by %s", a, h.Handle)
			}
			rec.Handle = h.Handle
			holders[h.Handle] = true
		}
	}
	if len(rec.Addrs) == 0 {
		return errors.New("its endpoint has no address")
	}
	if len(holders) > 1 {
		return fmt.Errorf("its addresses %v are held by more than one handle", rec.Addrs)
	}
	return nil
}

// adopt writes a record if there still is none and the device is still there.
func (s *Server) adopt(rec *Record) error {
	defer s.pods.lock(podKey(rec.Namespace, rec.Pod))()
	if s.cfg.Records.Get(rec.ID) != nil || len(s.cfg.Records.Of(rec.Interface)) > 0 || !s.podDevice(string(rec.Interface)) {
		return nil
	}
	if err := s.cfg.Records.Put(rec); err != nil {
		return err
	}
	s.cfg.Log.Info("a pod that lived here without a record was given one", "namespace", rec.Namespace, "pod", rec.Pod, "interface", rec.Interface, "addresses", rec.Addrs)
	return nil
}
