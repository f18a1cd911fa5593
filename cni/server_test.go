package cni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/memory"
)

var pluginDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "calico-cni-test")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "calico"), "github.com/calicogo/calico/cmd/calico-cni")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the plugin: %v\n%s", err, out)
			return 1
		}
		pluginDir = dir
		return m.Run()
	}())
}

// bed is a node: a namespace, a datastore, the server.
type bed struct {
	t     *testing.T
	ns    int
	h     *netlink.Handle
	store *memory.Store
	dir   string
	stop  func()
	srv   *Server
	recs  *Records
	plane *plane
}

// plane stands for the agent: it programs the route, and can be told to fail.
type plane struct {
	h    *netlink.Handle
	mu   sync.Mutex
	fail error
	gate chan struct{} // if there is one: wait for it
}

func (p *plane) Programmed(ctx context.Context, at *dataplane.Attachment) error {
	p.mu.Lock()
	fail, gate := p.fail, p.gate
	p.mu.Unlock()
	if fail != nil {
		<-ctx.Done()
		return fail
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l, err := p.h.LinkByName(string(at.Interface))
	if err != nil {
		return err
	}
	for _, a := range at.Addrs {
		dst := netlink.IPNet(netip.PrefixFrom(a, a.BitLen()))
		if err := p.h.RouteReplace(&vnl.Route{LinkIndex: l.Attrs().Index, Dst: dst, Scope: vnl.SCOPE_LINK}); err != nil {
			return err
		}
	}
	return nil
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, ns: nstest.New(t), store: memory.New(), dir: t.TempDir()}
	var err error
	if b.h, err = netlink.Open(b.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.h.Close)
	b.plane = &plane{h: b.h}
	objects := []api.Object{
		&api.IPPool{Meta: api.Named(api.KindIPPool, "", "v4"), Spec: api.IPPoolSpec{CIDR: "10.10.0.0/16"}},
		&api.IPPool{Meta: api.Named(api.KindIPPool, "", "v6"), Spec: api.IPPoolSpec{CIDR: "fd00:10::/64"}},
		&api.Node{Meta: api.Named(api.KindNode, "", "n1")},
	}
	for _, o := range objects {
		o.Default()
		if _, err := b.store.Commit(t.Context(), []store.Op{store.Create(o)}); err != nil {
			t.Fatal(err)
		}
	}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

// start starts the agent's side, as after a restart: nothing but files and datastore is
// carried over.
func (b *bed) start() {
	b.t.Helper()
	b.prepare()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.srv.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.t.Errorf("the server ended with %v", err)
		}
		b.stop = func() {}
	}
	b.wait("the socket", func() bool { _, err := os.Stat(b.socket()); return err == nil })
}

// prepare makes a server that is open and does not run.
func (b *bed) prepare() {
	b.t.Helper()
	var err error
	if b.recs, err = OpenRecords(filepath.Join(b.dir, "records"), b.ns); err != nil {
		b.t.Fatal(err)
	}
	b.srv, err = NewServer(Config{
		Node: "n1", Store: b.store, Allocator: ipam.NewAllocator(b.store, "n1"), Records: b.recs,
		Pods: labelled{}, Dataplane: b.plane, MTU: func() (int, error) { return 1450, nil },
		Pools: func(ctx context.Context) ([]*api.IPPool, *api.Node, error) {
			list, _, err := b.store.List(ctx, "IPPool", "")
			var pools []*api.IPPool
			for _, o := range list {
				pools = append(pools, o.(*api.IPPool))
			}
			return pools, &api.Node{Meta: api.Named(api.KindNode, "", "n1")}, err
		},
		Log: slog.New(slog.DiscardHandler), Socket: b.socket(), Journal: b.journal(), HostNS: b.ns, Replay: 20 * time.Millisecond,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.srv.Open()
}

func (b *bed) socket() string  { return filepath.Join(b.dir, "run", "cni.sock") }
func (b *bed) journal() string { return filepath.Join(b.dir, "del") }

type labelled struct{}

func (labelled) Get(_ context.Context, ns, _ string, args PodArgs) (Pod, error) {
	return Pod{Labels: args.Labels, Annotations: args.Annotations, Profiles: []string{"kns." + ns}}, nil
}

// wait polls for a condition that other goroutines bring about.
func (b *bed) wait(what string, f func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// runtimeCNI returns libcni as a runtime uses it; one must not be used in parallel.
func (b *bed) runtimeCNI() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir([]string{pluginDir}, filepath.Join(b.dir, "cache"), nil)
}

// pod is a sandbox.
type pod struct {
	name, id string
	ns       int
}

func (b *bed) pod(name, id string) pod { return pod{name, id, nstest.New(b.t)} }

func (b *bed) runtime(p pod) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: p.id, IfName: "eth0", NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.ns),
		Args: [][2]string{{"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", p.name}},
	}
}

func (b *bed) conf(version, extra string) *libcni.NetworkConfigList {
	b.t.Helper()
	text := fmt.Sprintf(`{"name":"k8s-pod-network","cniVersion":%q,"plugins":[{"type":"calico","ipam":{"type":"calico-ipam"},
		"agent_socket":%q,"agent_journal_dir":%q,"args":{"org.projectcalico":{"labels":{"run":"web"}}}%s}]}`, version, b.socket(), b.journal(), extra)
	list, err := libcni.ConfListFromBytes([]byte(text))
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

func (b *bed) add(p pod) *types100.Result {
	b.t.Helper()
	res, err := b.runtimeCNI().AddNetworkList(b.t.Context(), b.conf("1.0.0", ""), b.runtime(p))
	if err != nil {
		b.t.Fatalf("ADD %s: %v", p.name, err)
	}
	return parse(b.t, res)
}

func (b *bed) del(p pod) {
	b.t.Helper()
	if err := b.runtimeCNI().DelNetworkList(b.t.Context(), b.conf("1.0.0", ""), b.runtime(p)); err != nil {
		b.t.Fatalf("DEL %s: %v", p.name, err)
	}
}

func parse(t *testing.T, res types.Result) *types100.Result {
	t.Helper()
	r, err := types100.NewResultFromResult(res)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func addrs(r *types100.Result) (s []string) {
	for _, ip := range r.IPs {
		s = append(s, ip.Address.String())
	}
	return s
}

// left lists what of pods is in datastore, records and kernel.
func (b *bed) left() (things []string) {
	b.t.Helper()
	for _, kind := range []string{"WorkloadEndpoint", "IPAMHandle"} {
		list, _, err := b.store.List(b.t.Context(), kind, "")
		if err != nil {
			b.t.Fatal(err)
		}
		for _, o := range list {
			things = append(things, kind+" "+o.GetName())
		}
	}
	files, _ := filepath.Glob(filepath.Join(b.dir, "records", "*"))
	things = append(things, slices.DeleteFunc(files, func(name string) bool { return filepath.Base(name) == bootFile })...)
	files, _ = filepath.Glob(filepath.Join(b.journal(), "*"))
	things = append(things, files...)
	links, err := b.h.LinkList()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range links {
		if l.Attrs().Name != "lo" {
			things = append(things, "link "+l.Attrs().Name)
		}
	}
	return things
}

func (b *bed) nothingLeft() {
	b.t.Helper()
	var left []string
	b.wait("nothing left", func() bool { left = b.left(); return len(left) == 0 || b.t.Failed() })
	if len(left) > 0 {
		b.t.Errorf("left: %v", left)
	}
}

func TestAddResultInEveryVersion(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for i, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		p := b.pod(fmt.Sprint("pod", i), fmt.Sprint("c", i))
		res, err := b.runtimeCNI().AddNetworkList(t.Context(), b.conf(version, ""), b.runtime(p))
		if err != nil {
			t.Fatalf("%s: %v", version, err)
		}
		if res.Version() != version {
			t.Errorf("asked for %s, got %s", version, res.Version())
		}
		r := parse(t, res)
		if got := addrs(r); len(got) != 2 || !strings.HasPrefix(got[0], "10.10.") || !strings.HasSuffix(got[0], "/32") || !strings.HasSuffix(got[1], "/128") {
			t.Errorf("%s: addresses %v", version, got)
		}
		if in := r.Interfaces; len(in) != 2 || in[0].Sandbox != "" || in[1].Name != "eth0" || in[1].Sandbox != b.runtime(p).NetNS {
			t.Errorf("%s: interfaces %v", version, in)
		}
		if gw := r.IPs[0].Gateway.String(); gw != "169.254.1.1" {
			t.Errorf("%s: gateway %s", version, gw)
		}
		if version != "0.3.1" {
			if err := b.runtimeCNI().CheckNetworkList(t.Context(), b.conf(version, ""), b.runtime(p)); err != nil {
				t.Errorf("%s: CHECK: %v", version, err)
			}
		}
		b.del(p)
		b.del(p) // deleting what is not there is no error
	}
	b.nothingLeft()
}

func TestPodAndHostReachEachOtherAndEndpointIsWritten(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.hostAddr("192.0.2.1/32")
	p := b.pod("web", "c1")
	r := b.add(p)
	ip := strings.TrimSuffix(addrs(r)[0], "/32")
	nstest.RequireTool(t, "ping")
	for _, c := range []struct {
		ns int
		to string
	}{{b.ns, ip}, {p.ns, "192.0.2.1"}} {
		err := netlink.Do(c.ns, func() error {
			out, err := exec.Command("ping", "-c1", "-W5", c.to).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		})
		if err != nil {
			t.Errorf("ping %s: %v", c.to, err)
		}
	}
	o, err := b.store.Get(t.Context(), store.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "n1-k8s-web-eth0"})
	if err != nil {
		t.Fatal(err)
	}
	w := o.(*api.WorkloadEndpoint)
	if w.Labels["run"] != "web" || w.Labels[api.LabelNamespace] != "default" || w.Spec.ContainerID != "c1" ||
		!slices.Equal(w.Spec.IPNetworks, addrs(r)) || !slices.Equal(w.Spec.Profiles, []string{"kns.default"}) {
		t.Errorf("endpoint %+v %+v", w.Labels, w.Spec)
	}
	b.del(p)
	b.nothingLeft()
}

func (b *bed) hostAddr(cidr string) {
	b.t.Helper()
	lo, err := b.h.LinkByName("lo")
	if err != nil {
		b.t.Fatal(err)
	}
	a, err := vnl.ParseAddr(cidr)
	if err == nil {
		err = b.h.AddrAdd(lo, a)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestAddTwiceGivesTheSameAddress(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	first := addrs(b.add(p))
	if again := addrs(b.add(p)); !slices.Equal(first, again) {
		t.Errorf("%v, then %v", first, again)
	}
	b.stop()
	b.start()
	if again := addrs(b.add(p)); !slices.Equal(first, again) {
		t.Errorf("%v, then %v after a restart", first, again)
	}
	b.del(p)
	b.nothingLeft()
}

func TestNewSandboxReplacesTheOldOneAndItsDelTouchesNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	old, now := b.pod("web", "old"), b.pod("web", "now")
	b.add(old)
	r := b.add(now)
	b.del(old)
	if err := b.runtimeCNI().CheckNetworkList(t.Context(), b.conf("1.0.0", ""), b.runtime(now)); err != nil {
		t.Errorf("the newer sandbox: %v", err)
	}
	o, err := b.store.Get(t.Context(), store.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "n1-k8s-web-eth0"})
	if err != nil {
		t.Fatal(err)
	}
	if w := o.(*api.WorkloadEndpoint); w.Spec.ContainerID != "now" || !slices.Equal(w.Spec.IPNetworks, addrs(r)) {
		t.Errorf("endpoint %+v", w.Spec)
	}
	b.del(now)
	b.nothingLeft()
}

func TestAddThatIsNotProgrammedLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.plane.mu.Lock()
	b.plane.fail = errors.New("the kernel is tired")
	b.plane.mu.Unlock()
	p := b.pod("web", "c1")
	conf := b.conf("1.0.0", `,"policy_setup_timeout_seconds":0.05,"agent_timeout_seconds":0`)
	_, err := b.runtimeCNI().AddNetworkList(t.Context(), conf, b.runtime(p))
	var e *types.Error
	if !errors.As(err, &e) || e.Code != wire.CodeTryAgain || !strings.Contains(e.Msg, "the kernel is tired") {
		t.Errorf("got %v, want code 11 and the reason", err)
	}
	b.nothingLeft()
}

func TestAgentAway(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	b.add(p)
	b.stop()

	_, err := b.runtimeCNI().AddNetworkList(t.Context(), b.conf("1.0.0", `,"agent_timeout_seconds":0.2`), b.runtime(b.pod("other", "c2")))
	var e *types.Error
	if !errors.As(err, &e) || e.Code != wire.CodeTryAgain {
		t.Errorf("ADD: got %v, want code 11", err)
	}
	if err := b.runtimeCNI().GetStatusNetworkList(t.Context(), b.conf("1.1.0", "")); err == nil {
		t.Error("STATUS: no error")
	}
	if err := b.runtimeCNI().DelNetworkList(t.Context(), b.conf("1.0.0", `,"agent_timeout_seconds":0.2`), b.runtime(p)); err != nil {
		t.Errorf("DEL: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.journal(), "c1@eth0")); err != nil {
		t.Errorf("the DEL is not journalled: %v", err)
	}
	b.start()
	b.nothingLeft()
	if err := b.runtimeCNI().GetStatusNetworkList(t.Context(), b.conf("1.1.0", "")); err != nil {
		t.Errorf("STATUS: %v", err)
	}
}

func TestManyInParallel(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const n = 20
	pods := make([]pod, n)
	got := make([]string, n)
	for i := range pods {
		pods[i] = b.pod(fmt.Sprint("pod", i), fmt.Sprint("c", i))
	}
	var wg sync.WaitGroup
	for i, p := range pods {
		wg.Go(func() {
			res, err := b.runtimeCNI().AddNetworkList(t.Context(), b.conf("1.0.0", ""), b.runtime(p))
			if err != nil {
				t.Errorf("ADD: %v", err)
				return
			}
			got[i] = parse(t, res).IPs[0].Address.String()
		})
	}
	wg.Wait()
	slices.Sort(got)
	if len(slices.Compact(got)) != n {
		t.Errorf("addresses given twice: %v", got)
	}
	for _, p := range pods {
		wg.Go(func() {
			if err := b.runtimeCNI().DelNetworkList(t.Context(), b.conf("1.0.0", ""), b.runtime(p)); err != nil {
				t.Errorf("DEL: %v", err)
			}
		})
	}
	wg.Wait()
	b.nothingLeft()
}

func TestGCDetachesWhatTheRuntimeForgot(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	keep, forget := b.pod("keep", "c1"), b.pod("forget", "c2")
	b.add(keep)
	b.add(forget)
	err := b.runtimeCNI().GCNetworkList(t.Context(), b.conf("1.1.0", ""), &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}}})
	if err != nil {
		t.Fatal(err)
	}
	if b.recs.Get(dataplane.AttachmentID{ContainerID: "c2", IfName: "eth0"}) != nil {
		t.Error("the forgotten pod is attached")
	}
	if err := b.runtimeCNI().CheckNetworkList(t.Context(), b.conf("1.0.0", ""), b.runtime(keep)); err != nil {
		t.Errorf("the other: %v", err)
	}
	b.del(keep)
	b.nothingLeft()
}
