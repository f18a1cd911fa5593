package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
)

// add attaches a pod. Whatever fails, it leaves nothing behind: what cannot be taken back
// at once is in the record and taken back later.
func (s *Server) add(ctx context.Context, r *Request, ns *os.File) (json.RawMessage, error) {
	if !s.open.Load() {
		return nil, wire.Errorf(wire.CodeTryAgain, "%s", s.waitsFor())
	}
	if name := r.Conf.NodeName; name != "" && name != s.cfg.Node {
		return nil, wire.Errorf(wire.CodeConfig, "network configuration: nodename is %q, and this node is %q", name, s.cfg.Node)
	}
	n, err := s.namespaces(r, ns)
	if err != nil {
		return nil, err
	}
	defer n.close()
	if rec := s.cfg.Records.Get(r.ID); rec != nil && rec.State == Attached {
		return s.addAgain(ctx, r, rec, n)
	}
	rec, err := s.attach(ctx, r, n)
	if err != nil {
		return nil, errors.Join(err, s.takeBack(ctx, r.ID))
	}
	return result(r, rec)
}

// namespaces are the node's and the pod's, which must not be the same: a pod's wiring
// would turn the node's own network off.
func (s *Server) namespaces(r *Request, ns *os.File) (*namespaces, error) {
	if ns == nil {
		return nil, wire.Errorf(wire.CodeEnvironment, "%s without a network namespace", r.Command)
	}
	same, err := sameNamespace(s.cfg.HostNS, int(ns.Fd()))
	if err != nil {
		return nil, wire.Errorf(wire.CodeEnvironment, "CNI_NETNS=%s: %v", r.NetNS, err)
	}
	if same {
		return nil, wire.Errorf(wire.CodeEnvironment, "CNI_NETNS=%s is the node's own network namespace", r.NetNS)
	}
	return openNamespaces(s.cfg.HostNS, s.host, int(ns.Fd()))
}

// addAgain answers an ADD that was answered before, if the pod is still wired.
func (s *Server) addAgain(ctx context.Context, r *Request, rec *Record, n *namespaces) (json.RawMessage, error) {
	w := Plan(r, rec.Interface, rec.Addrs, rec.MTU)
	if err := w.check(n); err != nil {
		if err := s.detach(ctx, rec); err != nil {
			return nil, err
		}
		return nil, wire.Errorf(wire.CodeTryAgain, "what an earlier ADD made is damaged and was removed: %v", err)
	}
	if err := s.programmed(ctx, r, rec); err != nil {
		return nil, err
	}
	return result(r, rec)
}

func (s *Server) attach(ctx context.Context, r *Request, n *namespaces) (*Record, error) {
	host := HostInterface(s.cfg.Prefix, r.Namespace, r.Pod)
	if err := s.evict(ctx, r.ID, host); err != nil {
		return nil, fmt.Errorf("make room for pod %s/%s: %w", r.Namespace, r.Pod, err)
	}
	pod, err := s.cfg.Pods.Get(ctx, r.Namespace, r.Pod, r.Args)
	if err != nil {
		return nil, err
	}
	mtu, err := s.cfg.MTU()
	if err != nil && r.Conf.MTU == 0 {
		return nil, fmt.Errorf("the pod's MTU: %w", err)
	}
	rec := &Record{
		ID: r.ID, State: Adding, Handle: r.Handle(), Namespace: r.Namespace, Pod: r.Pod, Interface: host, MTU: mtu,
	}
	if err := s.cfg.Records.Put(rec); err != nil {
		return nil, err
	}
	s.step("record says adding")
	w, err := s.assign(ctx, r, &pod, rec)
	if err != nil {
		return nil, err
	}
	if err := w.apply(n, s.step); err != nil {
		return nil, err
	}
	rec.State = Attached
	if err := s.cfg.Records.Put(rec); err != nil {
		return nil, err
	}
	s.step("record says attached")
	return rec, s.programmed(ctx, r, rec)
}

// assign takes the addresses and writes the endpoint with the same commit, and notes both
// in rec.
func (s *Server) assign(ctx context.Context, r *Request, pod *Pod, rec *Record) (Wiring, error) {
	pools, node, err := s.cfg.Pools(ctx)
	if err != nil {
		return Wiring{}, err
	}
	sel, err := selectAddrs(r.Conf.IPAM, pod, pools, node)
	if err != nil {
		return Wiring{}, err
	}
	var w Wiring
	var ep *api.WorkloadEndpoint
	_, err = s.cfg.Allocator.Assign(ctx, ipam.Request{
		Handle: rec.Handle, Families: sel.families, Pools: sel.pools, Addrs: sel.addrs, Use: api.UseWorkload, Now: time.Now(),
		Attrs: map[string]string{
			api.AttrNode: s.cfg.Node, api.AttrNamespace: r.Namespace, api.AttrPod: r.Pod,
			"timestamp": time.Now().UTC().String(),
		},
	}, func(addrs []netip.Addr) ([]store.Op, error) {
		w = Plan(r, rec.Interface, addrs, rec.MTU)
		if ep, err = endpoint(r, pod, s.cfg.Node, w); err != nil {
			return nil, err
		}
		// Nobody but this agent writes the endpoints of its node: one of an older
		// sandbox is replaced.
		return []store.Op{store.Put(ep)}, nil
	})
	rec.Endpoint, rec.Addrs, rec.MAC = ep, w.Addrs, w.MAC
	return w, err
}

// programmed waits, for as long as the configuration allows, until the kernel has rules
// and routes.
func (s *Server) programmed(ctx context.Context, r *Request, rec *Record) error {
	ctx, cancel := context.WithTimeout(ctx, r.Patience())
	defer cancel()
	if err := s.cfg.Dataplane.Programmed(ctx, rec.Attachment()); err != nil {
		return wire.Errorf(wire.CodeTryAgain, "after %v %v", r.Patience(), err)
	}
	return nil
}

// evict removes what other sandboxes of the same pod left on its host interface, and a
// device of that name that no record explains.
func (s *Server) evict(ctx context.Context, id dataplane.AttachmentID, host dataplane.Interface) error {
	for _, old := range s.cfg.Records.Of(host) {
		if old.ID == id || old.State == Releasing {
			continue
		}
		if old.ID.ContainerID == id.ContainerID {
			return fmt.Errorf("it has the interface %s of this network already, and Calico gives a pod one", old.ID.IfName)
		}
		if err := s.detach(ctx, old); err != nil {
			return err
		}
	}
	err := s.removeLink(string(host))
	s.step("room made")
	return err
}

// del detaches a pod. It acts on what the container's own record says, so that the DEL
// of an older sandbox does not touch a newer one.
func (s *Server) del(ctx context.Context, r *Request) error {
	rec := s.cfg.Records.Get(r.ID)
	if rec == nil { // an ADD that died early, or a DEL that came before
		if r.Conf.validateName() != nil || r.validateNames() != nil {
			return nil // no ADD can have got anything by such names
		}
		rec = s.unrecorded(ctx, r)
	}
	return s.detach(ctx, rec)
}

// unrecorded makes up the record of an attachment that has none. The device is this
// container's only if the stored endpoint says so; where that cannot be read now, the
// device is taken for a leak once the endpoint is gone.
func (s *Server) unrecorded(ctx context.Context, r *Request) *Record {
	rec := &Record{ID: r.ID, Handle: r.Handle(), Namespace: r.Namespace, Pod: r.Pod}
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	o, err := s.cfg.Store.Get(ctx, s.endpointKey(rec))
	if err != nil {
		return rec
	}
	ep := o.(*api.WorkloadEndpoint)
	if host := dataplane.Interface(ep.Spec.InterfaceName); ep.Spec.ContainerID == r.ID.ContainerID && s.podDevice(string(host)) {
		rec.Interface = host
	}
	return rec
}

// releaseTime is for how long a DEL waits for the datastore; what does not answer by then
// is put off.
const releaseTime = 5 * time.Second

func (s *Server) endpointKey(rec *Record) store.Key {
	name := api.WorkloadEndpointName(s.cfg.Node, "k8s", rec.Pod, rec.ID.IfName)
	return store.Key{Kind: api.KindWorkloadEndpoint.Name, Namespace: rec.Namespace, Name: name}
}

// detach takes the pod's device away, then gives its addresses back. The second part may
// wait for the datastore.
func (s *Server) detach(ctx context.Context, rec *Record) error {
	if err := s.cutOff(rec); err != nil {
		return err
	}
	if err := s.release(ctx, rec); err != nil {
		s.cfg.Log.Warn("the pod's addresses are given back later", "container", rec.ID.ContainerID, "error", err)
		rec.State = Releasing
		return s.cfg.Records.Put(rec)
	}
	return s.forget(rec)
}

// cutOff takes the pod's device away. The record says so first: where this is cut short,
// the next start goes on with it. The agent is told last, whatever comes of the device: to
// take the rules away costs the kernel a grace period, for which the device would wait.
func (s *Server) cutOff(rec *Record) error {
	if rec.State == Attached || rec.State == Adding {
		rec.State = Releasing
		defer s.cfg.Records.Tell(rec.ID)
		if err := s.cfg.Records.Note(rec); err != nil { // a full disk, which deleting pods may cure
			s.cfg.Log.Warn("a DEL goes on without being written down", "error", err)
		}
		s.step("record says releasing")
	}
	err := s.removeOwnLink(rec)
	s.step("device removed")
	return err
}

// forget removes the record of an attachment of which nothing is left.
func (s *Server) forget(rec *Record) error {
	err := s.cfg.Records.Remove(rec.ID)
	s.step("record removed")
	return err
}

// removeOwnLink removes an attachment's device, unless another sandbox of the pod uses it.
func (s *Server) removeOwnLink(rec *Record) error {
	if rec.Interface == "" {
		return nil
	}
	for _, other := range s.cfg.Records.Of(rec.Interface) {
		if other.ID != rec.ID && other.State != Releasing {
			return nil
		}
	}
	return s.removeLink(string(rec.Interface))
}

// removeLink deletes a device, with those that other calls delete meanwhile; that there is
// none is no error.
func (s *Server) removeLink(name string) error {
	l, err := s.host.LinkByName(name)
	if err == nil {
		err = s.deleter.Delete(l.Attrs().Index)
	}
	if err == nil || netlink.IsNoLink(err) {
		return nil
	}
	return fmt.Errorf("delete device %s: %w", name, err)
}

// release gives the addresses back and deletes the endpoint, if it is still this
// container's, with one commit.
func (s *Server) release(ctx context.Context, rec *Record) error {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	for {
		ops, err := s.deleteEndpoint(ctx, rec)
		if err != nil {
			return err
		}
		err = s.cfg.Allocator.Release(ctx, rec.Handle, time.Now(), ops...)
		var oe *store.OpError
		if errors.As(err, &oe) && oe.Key.Kind == api.KindWorkloadEndpoint.Name && ctx.Err() == nil {
			rec.Endpoint = nil // written by somebody else meanwhile: look again
			continue
		}
		return err
	}
}

// deleteEndpoint returns the op that deletes the attachment's endpoint; none if there is
// no such endpoint or it is another sandbox's.
func (s *Server) deleteEndpoint(ctx context.Context, rec *Record) ([]store.Op, error) {
	if rec.Endpoint != nil {
		return []store.Op{store.Delete(store.KeyOf(rec.Endpoint), api.Revision(rec.Endpoint))}, nil
	}
	key := s.endpointKey(rec)
	o, err := s.cfg.Store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if o.(*api.WorkloadEndpoint).Spec.ContainerID != rec.ID.ContainerID {
		return nil, nil
	}
	return []store.Op{store.Delete(key, api.Revision(o))}, nil
}

// takeBack undoes an ADD that failed, also when ctx has ended.
func (s *Server) takeBack(ctx context.Context, id dataplane.AttachmentID) error {
	rec := s.cfg.Records.Get(id)
	if rec == nil {
		return nil
	}
	return s.detach(context.WithoutCancel(ctx), rec)
}

// check compares the pod with its record.
func (s *Server) check(r *Request, ns *os.File) error {
	rec := s.cfg.Records.Get(r.ID)
	if rec == nil || rec.State != Attached {
		return wire.Errorf(wire.CodeUnknownPod, "container %s is not attached", r.ID.ContainerID)
	}
	n, err := s.namespaces(r, ns)
	if err != nil {
		return err
	}
	defer n.close()
	w := Plan(r, rec.Interface, rec.Addrs, rec.MTU)
	return w.check(n)
}

// locked calls f with the record as it is now, if there still is one, while no call for
// the same pod runs.
func (s *Server) locked(rec *Record, f func(now *Record) error) error {
	unlock := s.pods.lock(podKey(rec.Namespace, rec.Pod))
	defer unlock()
	if rec = s.cfg.Records.Get(rec.ID); rec == nil {
		return nil
	}
	return f(rec)
}
