package cni

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/store"
)

// inventory feeds one from the bed's datastore while the test runs.
func (b *bed) inventory() *Inventory {
	b.t.Helper()
	v := NewInventory("n1")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.store.Watch().Run(ctx, v.Update) }()
	b.t.Cleanup(func() { cancel(); <-done })
	b.wait("the inventory", func() bool { return v.contents().inSync })
	return v
}

// sweep sweeps until nothing more is suspected.
func (b *bed) sweep(v *Inventory) Findings {
	b.t.Helper()
	for range 10 {
		f, err := b.srv.Sweep(b.t.Context(), v)
		if err != nil {
			b.t.Fatal(err)
		}
		if !f.Again {
			return f
		}
	}
	b.t.Fatal("there is always something to look at again")
	return Findings{}
}

func (b *bed) veth(name string) {
	b.t.Helper()
	if err := b.h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: name}, PeerName: "p" + name[1:]}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) assign(handle string, attrs map[string]string) netip.Addr {
	b.t.Helper()
	pools, _, err := b.srv.cfg.Pools(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	as, err := b.srv.cfg.Allocator.Assign(b.t.Context(), ipam.Request{
		Handle: handle, Families: []dataplane.Family{dataplane.IPv4}, Pools: pools, Now: time.Now(), Attrs: attrs,
	}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return as[0]
}

func ofPod(node, pod string) map[string]string {
	return map[string]string{api.AttrNode: node, api.AttrNamespace: "default", api.AttrPod: pod}
}

func (b *bed) endpoint(node, pod, container, device string) *api.WorkloadEndpoint {
	b.t.Helper()
	e := &api.WorkloadEndpoint{
		Meta: api.Named(api.KindWorkloadEndpoint, "default", api.WorkloadEndpointName(node, "k8s", pod, "eth0")),
		Spec: api.WorkloadEndpointSpec{
			Orchestrator: "k8s", Workload: pod, Pod: pod, Node: node, ContainerID: container, Endpoint: "eth0",
			InterfaceName: device, IPNetworks: []string{"10.10.255.1/32"},
		},
	}
	if _, err := b.store.Commit(b.t.Context(), []store.Op{store.Put(e)}); err != nil {
		b.t.Fatal(err)
	}
	return e
}

// orphan makes the device of a pod that was seen and is no more.
func (b *bed) orphan(v *Inventory, pod string) {
	b.t.Helper()
	b.veth(hostDevice(pod))
	key := store.KeyOf(b.endpoint("n1", pod, pod, hostDevice(pod)))
	there := func() bool {
		return slices.ContainsFunc(v.contents().endpoints, func(e *api.WorkloadEndpoint) bool { return store.KeyOf(e) == key })
	}
	b.wait("its endpoint", there)
	if _, err := b.srv.look(v); err != nil {
		b.t.Fatal(err)
	}
	o, err := b.store.Get(b.t.Context(), key)
	if err == nil {
		_, err = b.store.Commit(b.t.Context(), []store.Op{store.Delete(key, api.Revision(o))})
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.wait("its endpoint to go", func() bool { return !there() })
}

func hostDevice(pod string) string { return string(HostInterface("cali", "default", pod)) }

// TestSweepRemovesWhatNobodyHas, and nothing else.
func TestSweepRemovesWhatNobodyHas(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	live := b.pod("live", "c-live")
	b.add(live)
	// Leaks.
	b.assign("net.gone", ofPod("n1", "gone"))
	b.assign("net.older", ofPod("n1", "live")) // of an older sandbox of a pod that lives
	b.endpoint("n1", "gone", "gone", hostDevice("gone"))
	// No leaks.
	b.assign("macvlan.pod", ofPod("n1", "macvlan")) // wired by another plugin
	b.veth(hostDevice("stranger"))                  // of another datastore, perhaps
	b.veth("eniabcdef01234")
	b.endpoint("n1", "eni", "eni", "eniabcdef01234")
	b.assign("net.eni", ofPod("n1", "eni"))
	b.assign("net.elsewhere", ofPod("n2", "elsewhere"))
	b.endpoint("n2", "elsewhere", "elsewhere", hostDevice("elsewhere"))
	b.assign("vxlan-tunnel-addr-n1", map[string]string{api.AttrNode: "n1", api.AttrType: "vxlanTunnelAddress"})
	b.assign("net.foreign", map[string]string{api.AttrNode: "n1"})
	b.assign("net.starting", ofPod("n1", "starting")) // another Calico's, not yet an endpoint
	b.veth(hostDevice("starting"))
	b.veth("calico-test")
	rec := record("adding", Adding)
	rec.Handle = "net.adding"
	put(t, b.recs, rec)
	b.assign("net.adding", ofPod("n1", "adding"))

	v := b.inventory()
	b.orphan(v, "orphan")
	if f, err := b.srv.Sweep(t.Context(), v); err != nil || !f.Again {
		t.Fatalf("the first look: %+v, %v", f, err)
	}
	if _, err := b.h.LinkByName(hostDevice("orphan")); err != nil {
		t.Errorf("one look is enough to remove a device: %v", err)
	}
	b.wait("the leaks are gone", func() bool { b.sweep(v); return b.handles() == b.kept() })
	f := b.sweep(v)
	if text := fmt.Sprint(f.Foreign); len(f.Foreign) != 2 || !strings.Contains(text, "eniabcdef01234") || !strings.Contains(text, hostDevice("stranger")) {
		t.Errorf("foreign: %v", f.Foreign)
	}
	var names []string
	for _, l := range b.left() {
		if name, ok := strings.CutPrefix(l, "link "); ok && !strings.HasPrefix(name, "p") {
			names = append(names, name)
		}
	}
	want := []string{hostDevice("live"), hostDevice("starting"), hostDevice("stranger"), "eniabcdef01234", "calico-test"}
	slices.Sort(want)
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("devices %v, want %v", names, want)
	}
	eps, _, err := b.store.List(t.Context(), api.KindWorkloadEndpoint.Name, "")
	if err != nil || len(eps) != 3 {
		t.Errorf("endpoints %v, %v; want those of live, eni and elsewhere", eps, err)
	}
	if err := b.call(b.request("CHECK", live, podArgs(live), ""), live.ns); err != nil {
		t.Error(err)
	}
}

func (b *bed) handles() string {
	list, _, err := b.store.List(b.t.Context(), api.KindIPAMHandle.Name, "")
	if err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, o := range list {
		names = append(names, o.GetName())
	}
	return strings.Join(names, " ")
}

func (b *bed) kept() string {
	return "k8s-pod-network.c-live macvlan.pod net.adding net.elsewhere net.eni net.foreign net.starting vxlan-tunnel-addr-n1"
}

// TestSweepLeavesWhatIsNotInSync alone.
func TestSweepLeavesWhatIsNotInSync(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.veth(hostDevice("orphan"))
	v := NewInventory("n1")
	for range 3 {
		if f, err := b.srv.Sweep(t.Context(), v); err != nil || f.Again {
			t.Errorf("%+v, %v", f, err)
		}
	}
	if _, err := b.h.LinkByName(hostDevice("orphan")); err != nil {
		t.Error(err)
	}
}

// TestALeakThatIsTakenMeanwhileStays: what was seen is compared when it is removed.
func TestALeakThatIsTakenMeanwhileStays(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.assign("net.gone", ofPod("n1", "gone"))
	b.endpoint("n1", "gone", "gone", hostDevice("gone"))
	v := b.inventory()
	b.srv.seen.network("net") // an ADD came with it
	b.orphan(v, "orphan")
	l, err := b.srv.look(v)
	if err != nil {
		t.Fatal(err)
	}
	leaks := l.leaks()
	if len(leaks) != 3 {
		t.Fatalf("leaks %+v", leaks)
	}
	// The same names again: another assignment, revision and index.
	if err := b.srv.cfg.Allocator.Release(t.Context(), "net.gone", time.Now()); err != nil {
		t.Fatal(err)
	}
	b.assign("net.gone", ofPod("n1", "gone"))
	b.endpoint("n1", "gone", "other", hostDevice("gone"))
	if err := removeLink(b.h, hostDevice("orphan")); err != nil {
		t.Fatal(err)
	}
	b.veth(hostDevice("orphan"))
	for _, k := range leaks {
		if err := b.srv.removeLeak(t.Context(), k); err != nil {
			t.Errorf("%s: %v", k.key, err)
		}
	}
	if left := b.left(); len(left) != 4 { // the pair, address and endpoint
		t.Errorf("left: %v", left)
	}
}

// TestLostRecords loses the directory of records under living pods.
func TestLostRecords(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, q := b.pod("web", "c1"), b.pod("db", "c-2") // an ID with a dash
	got, second := addrs(b.add(p)), addrs(b.add(q))
	b.stop()
	b.loseRecords()
	b.start()
	v := b.inventory()
	foreign, err := b.srv.Adopt(v)
	if err != nil || len(foreign) > 0 {
		t.Fatalf("%v, %v", foreign, err)
	}
	for _, x := range []pod{p, q} {
		if err := b.call(b.request("CHECK", x, podArgs(x), ""), x.ns); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	at := b.recs.Get(dataplane.AttachmentID{ContainerID: "c-2", IfName: "eth0"}).Attachment()
	if at == nil || string(at.Interface) != hostDevice("db") || at.Endpoint == nil || len(at.Addrs) != 2 {
		t.Fatalf("attachment %+v", at)
	}
	if again := addrs(b.add(p)); !slices.Equal(again, got) {
		t.Errorf("ADD again gives %v, not %v", again, got)
	}
	b.sweep(v)
	third := b.pod("third", "c3")
	if new := addrs(b.add(third)); slices.Contains(got, new[0]) || slices.Contains(second, new[0]) {
		t.Errorf("%v is given again", new)
	}
	b.del(p)
	b.del(q)
	b.del(third)
	b.nothingLeft()
	b.noAddressHeld()
}

// TestRecordsAreRestored when they are removed under a running agent.
func TestRecordsAreRestored(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	b.add(p)
	b.loseRecords()
	q := b.pod("db", "c2")
	b.add(q)
	b.sweep(b.inventory())
	if _, err := os.Stat(filepath.Join(b.dir, "records", "c1@eth0.json")); err != nil {
		t.Error(err)
	}
	b.del(p)
	b.del(q)
	b.nothingLeft()
}

// TestAPodOfAnotherCalico has device, endpoint and address, and no record.
func TestAPodOfAnotherCalico(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	addr := b.assign("upstream.c1", ofPod("n1", "web"))
	b.veth(hostDevice("web"))
	e := b.endpoint("n1", "web", "c1", hostDevice("web"))
	e.Spec.IPNetworks = []string{addr.String() + "/32"}
	e.Spec.MAC = "ee:ee:ee:ee:ee:ee"
	if _, err := b.store.Commit(t.Context(), []store.Op{store.Put(e)}); err != nil {
		t.Fatal(err)
	}
	v := b.inventory()
	b.wait("it is adopted", func() bool { b.sweep(v); return len(b.recs.All()) == 1 })
	rec := b.recs.All()[0]
	if rec.Handle != "upstream.c1" || rec.State != Attached || rec.Addrs[0] != addr {
		t.Errorf("record %+v", rec)
	}
	b.del(pod{name: "web", id: "c1", ns: b.ns})
	b.nothingLeft()
}

// TestAPodThatCannotBeAdopted is told of and not touched.
func TestAPodThatCannotBeAdopted(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	addr := b.assign("net.other", ofPod("n1", "other"))
	b.veth(hostDevice("other"))
	b.veth(hostDevice("web"))
	e := b.endpoint("n1", "web", "c1", hostDevice("web"))
	e.Spec.IPNetworks = []string{addr.String() + "/32"}
	if _, err := b.store.Commit(t.Context(), []store.Op{store.Put(e)}); err != nil {
		t.Fatal(err)
	}
	v := b.inventory()
	var f Findings
	b.wait("it is told of", func() bool { f = b.sweep(v); return len(f.Foreign) > 0 })
	for _, want := range []string{"pod default/web on " + hostDevice("web"), "is held by net.other"} {
		if !strings.Contains(f.Foreign[0].Error(), want) {
			t.Errorf("%v: want it to contain %q", f.Foreign[0], want)
		}
	}
	if left := b.left(); len(left) != 6 {
		t.Errorf("left: %v; want two pairs, an endpoint and a handle", left)
	}
}
