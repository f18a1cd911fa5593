package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
	"github.com/calicogo/calico/store/etcd/etcdtest"
)

// childEnv has this test process be an agent: the directory of its files, and etcd's
// endpoint.
const childEnv = "CALICO_TEST_AGENT"

// withoutEnv names what that agent must do without.
const withoutEnv = "CALICO_TEST_WITHOUT"

func TestMain(m *testing.M) {
	if dir, endpoint, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		if os.Getenv(withoutEnv) == "iptables" {
			if err := hideIptables(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		go func() { // the other end is this test's, whatever becomes of it
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
		fmt.Fprintln(os.Stderr, runAgent(dir, endpoint))
		os.Exit(1)
	}
	code := m.Run()
	os.Remove(pluginPath)
	os.Exit(code)
}

var pluginPath = filepath.Join(os.TempDir(), fmt.Sprintf("calico-cni-%d", os.Getpid()))

// runAgent is a node in the network namespace of this process. Each step is written down;
// the one that the file failpoint names is the process's last.
func runAgent(dir, endpoint string) error {
	var mu sync.Mutex
	step := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		if f, err := os.OpenFile(filepath.Join(dir, "steps"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600); err == nil {
			fmt.Fprintln(f, name)
			f.Close()
		}
		if at, err := os.ReadFile(filepath.Join(dir, "failpoint")); err == nil && string(at) == name {
			os.Remove(filepath.Join(dir, "failpoint"))
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	return Run(context.Background(), Config{
		Name: "n1", Version: "test", Datastore: etcd.Config{Endpoints: []string{endpoint}},
		IPv4: AddressSetting{Given: netip.MustParsePrefix("192.0.2.1/24")}, IPv6: AddressSetting{Off: true},
		Felix:  config.FromEnviron([]string{"FELIX_HEALTHENABLED=true"}),
		RunDir: filepath.Join(dir, "run"), LibDir: filepath.Join(dir, "lib"),
		Sweep: 200 * time.Millisecond, Step: step,
	}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// machine is a node of its own: a namespace, an agent that is started again when it dies,
// the plugin, a namespace for a pod.
type machine struct {
	t       *testing.T
	dir     string
	ns, pod int
	h       *netlink.Handle
	store   *etcd.Store
	url     string
	without string // see withoutEnv

	mu      sync.Mutex
	stopped bool
	process *os.Process
	deaths  int
	ended   chan struct{}
}

func newMachine(t *testing.T) *machine { return newMachineWithout(t, "") }

// newMachineWithout makes one whose agent must do without what withoutEnv names.
func newMachineWithout(t *testing.T, what string) *machine {
	t.Helper()
	nstest.RequireRoot(t)
	dir, err := os.MkdirTemp("", "node") // a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &machine{t: t, dir: dir, ns: nstest.New(t), pod: nstest.New(t), url: etcdtest.Start(t), without: what, ended: make(chan struct{})}
	if m.h, err = netlink.Open(m.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.h.Close)
	m.underlay()
	if m.store, err = etcd.Open(t.Context(), etcd.Config{Endpoints: []string{m.url}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.store.Close() })
	m.seed()
	m.start()
	t.Cleanup(m.stop)
	return m
}

// underlay gives the node its address.
func (m *machine) underlay() {
	m.t.Helper()
	err := m.h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: "eth0"}, PeerName: "peer0"})
	for _, name := range []string{"peer0", "eth0"} {
		l, errLink := m.h.LinkByName(name)
		if err = errors.Join(err, errLink); err != nil {
			m.t.Fatal(err)
		}
		if name == "eth0" {
			err = m.h.AddrAdd(l, &vnl.Addr{IPNet: netlink.IPNet(netip.MustParsePrefix("192.0.2.1/24"))})
		}
		err = errors.Join(err, m.h.LinkSetUp(l))
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) seed() {
	m.t.Helper()
	none := 0
	for _, o := range []api.Object{
		&api.IPPool{Meta: api.Named(api.KindIPPool, "", "v4"), Spec: api.IPPoolSpec{CIDR: "10.10.0.0/24"}},
		&api.Profile{Meta: api.Named(api.KindProfile, "", "kns.default")},
		&api.IPAMConfiguration{Meta: api.Named(api.KindIPAMConfiguration, "", "default"), Spec: api.IPAMConfigurationSpec{IPCooldownSeconds: &none}},
	} {
		o.Default()
		if _, err := m.store.Commit(m.t.Context(), []store.Op{store.Create(o)}); err != nil {
			m.t.Fatal(err)
		}
	}
}

// start runs the agent until stop.
func (m *machine) start() {
	m.mu.Lock()
	m.stopped, m.ended = false, make(chan struct{})
	m.mu.Unlock()
	go func() {
		defer close(m.ended)
		for m.once() {
		}
	}()
}

// once runs the agent until it ends; it returns whether to run it again.
func (m *machine) once() bool {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+m.dir+" "+m.url, withoutEnv+"="+m.without)
	if m.without != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	}
	log, err := os.OpenFile(filepath.Join(m.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Error(err)
		return false
	}
	defer log.Close()
	cmd.Stderr = log
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		m.t.Error(err)
		return false
	}
	defer lifeline.Close()
	m.mu.Lock()
	if m.stopped {
		m.mu.Unlock()
		return false
	}
	err = netlink.Do(m.ns, cmd.Start)
	m.process = cmd.Process
	m.mu.Unlock()
	if err != nil {
		m.t.Error(err)
		return false
	}
	_ = cmd.Wait() // killed
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaths++
	return !m.stopped
}

func (m *machine) stop() {
	m.mu.Lock()
	m.stopped = true
	if m.process != nil {
		_ = m.process.Kill() // it may have ended
	}
	m.mu.Unlock()
	<-m.ended
	if m.t.Failed() {
		b, _ := os.ReadFile(filepath.Join(m.dir, "log"))
		m.t.Logf("the agent said:\n%s", b[max(0, len(b)-4000):])
	}
}

func (m *machine) wait(what string, f func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// ready waits until the agent takes pods.
func (m *machine) ready() {
	m.t.Helper()
	m.wait("the agent is ready", func() bool { return m.status().Ready })
}

// cni runs the plugin as a runtime does.
func (m *machine) cni(command, pod, container string) error {
	conf := fmt.Sprintf(`{"name":"k8s-pod-network","cniVersion":"1.0.0","type":"calico","ipam":{"type":"calico-ipam"},
		"agent_socket":%q,"agent_journal_dir":%q}`, filepath.Join(m.dir, "run/cni/cni.sock"), filepath.Join(m.dir, "lib/cni/del"))
	var out bytes.Buffer
	cmd := exec.Command(plugin(m.t))
	cmd.Stdin, cmd.Stdout = strings.NewReader(conf), &out
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+container, "CNI_IFNAME=eth0",
		fmt.Sprintf("CNI_NETNS=/proc/%d/fd/%d", os.Getpid(), m.pod), "CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME="+pod)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s of %s: %w: %s", command, pod, err, &out)
	}
	return nil
}

// plugin builds the CNI plugin once.
func plugin(t *testing.T) string {
	t.Helper()
	path, err := buildPlugin()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildPlugin = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "build", "-o", pluginPath, "github.com/calicogo/calico/cmd/calico-cni")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the plugin: %w\n%s", err, out)
	}
	return pluginPath, nil
})

func (m *machine) must(command, pod, container string) {
	m.t.Helper()
	if err := m.cni(command, pod, container); err != nil {
		m.t.Error(err)
	}
}

// recorded calls the plugin and returns the steps that the agent took, each name once.
func (m *machine) recorded(command, pod, container string) []string {
	m.t.Helper()
	steps := filepath.Join(m.dir, "steps")
	if err := os.RemoveAll(steps); err != nil {
		m.t.Fatal(err)
	}
	m.must(command, pod, container)
	var b []byte
	m.wait("the call's last step", func() bool {
		var err error
		b, err = os.ReadFile(steps)
		return err == nil && bytes.HasSuffix(b, []byte("answered\n"))
	})
	var names []string
	for name := range strings.Lines(string(b)) {
		if name = strings.TrimSpace(name); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// killAt has the agent die at a step of a call, which succeeds with the next agent.
func (m *machine) killAt(step, command, pod, container string) {
	m.t.Helper()
	m.mu.Lock()
	deaths := m.deaths
	m.mu.Unlock()
	if err := os.WriteFile(filepath.Join(m.dir, "failpoint"), []byte(step), 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := m.cni(command, pod, container); err != nil {
		m.t.Errorf("killed at %q: %v", step, err)
	}
	m.wait("the agent dies at "+step, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.deaths > deaths
	})
}

// left lists what there is of pods in files, datastore and kernel.
func (m *machine) left() (things []string) {
	m.t.Helper()
	for _, kind := range []string{"WorkloadEndpoint", "IPAMHandle"} {
		list, _, err := m.store.List(m.t.Context(), kind, "")
		if err != nil {
			m.t.Fatal(err)
		}
		for _, o := range list {
			things = append(things, kind+" "+o.GetName())
		}
	}
	blocks, _, err := m.store.List(m.t.Context(), "IPAMBlock", "")
	if err != nil {
		m.t.Fatal(err)
	}
	for _, o := range blocks {
		hs, err := ipam.HoldingsOf(o.(*api.IPAMBlock), "n1")
		if err != nil {
			m.t.Fatal(err)
		}
		for _, h := range hs {
			things = append(things, "address "+h.Addr.String())
		}
	}
	for _, glob := range []string{"lib/cni/*.json", "lib/cni/del/*"} {
		files, _ := filepath.Glob(filepath.Join(m.dir, glob))
		things = append(things, files...)
	}
	return append(things, m.inKernel()...)
}

var podThing = regexp.MustCompile(`cali[0-9a-f]{11}|10\.10\.0\.[0-9]+( |$)`)

// inKernel lists devices, routes and rules of pods.
func (m *machine) inKernel() (things []string) {
	m.t.Helper()
	for _, tool := range []string{"nft", "ip"} {
		nstest.RequireTool(m.t, tool)
	}
	err := netlink.Do(m.ns, func() error {
		for _, args := range [][]string{{"ip", "link"}, {"ip", "route"}, {"ip", "rule"}, {"nft", "list", "ruleset"}} {
			out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%q: %w\n%s", args, err, out)
			}
			for line := range strings.Lines(string(out)) {
				if podThing.MatchString(line) {
					things = append(things, strings.Join(args, " ")+": "+strings.TrimSpace(line))
				}
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return things
}

func (m *machine) nothingLeft() {
	m.t.Helper()
	var left []string
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if left = m.left(); len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("left: %q", left)
		}
	}
}

// TestAgentKilledAtEveryStep kills the agent, with SIGKILL, at each step of ADD and DEL
// that it takes; the call succeeds with the next agent, and nothing is left.
func TestAgentKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.ready()
	adds, dels := m.recorded("ADD", "first", "first"), m.recorded("DEL", "first", "first")
	m.nothingLeft()
	if len(adds) < 10 || len(dels) < 4 {
		t.Fatalf("ADD has the steps %q, DEL %q", adds, dels)
	}
	t.Logf("%d steps of ADD, %d of DEL", len(adds), len(dels))
	for i, step := range adds {
		if strings.Contains(step, "BlockAffinity") { // the node has its block by now
			continue
		}
		name := fmt.Sprint("add", i)
		m.killAt(step, "ADD", name, name)
		m.must("CHECK", name, name)
		m.must("DEL", name, name)
	}
	for i, step := range dels {
		name := fmt.Sprint("del", i)
		m.must("ADD", name, name)
		m.killAt(step, "DEL", name, name)
	}
	m.ready()
	m.nothingLeft()
}

// TestRecordsLostUnderAPod loses /var/lib/calico: the pod keeps its network, its address
// and its DEL.
func TestRecordsLostUnderAPod(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.ready()
	m.must("ADD", "web", "c1")
	before := m.inKernel()
	m.stop()
	if err := os.RemoveAll(filepath.Join(m.dir, "lib")); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.ready()
	if after := m.inKernel(); !slices.Equal(after, before) || len(after) < 3 {
		t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	m.must("CHECK", "web", "c1")
	m.must("DEL", "web", "c1")
	m.nothingLeft()
}

// TestLeaksAreFoundWhileTheAgentRuns: an address and an endpoint of no pod.
func TestLeaksAreFoundWhileTheAgentRuns(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.ready()
	o, err := m.store.Get(t.Context(), store.Key{Kind: "IPPool", Name: "v4"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ipam.NewAllocator(m.store, "n1").Assign(t.Context(), ipam.Request{
		Handle: "k8s-pod-network.gone", Families: []dataplane.Family{dataplane.IPv4}, Pools: []*api.IPPool{o.(*api.IPPool)}, Now: time.Now(),
		Attrs: map[string]string{api.AttrNode: "n1", api.AttrNamespace: "default", api.AttrPod: "gone"},
	}, func([]netip.Addr) ([]store.Op, error) {
		return []store.Op{store.Put(&api.WorkloadEndpoint{
			Meta: api.Named(api.KindWorkloadEndpoint, "default", "n1-k8s-gone-eth0"),
			Spec: api.WorkloadEndpointSpec{Orchestrator: "k8s", Workload: "gone", Pod: "gone", Node: "n1", ContainerID: "gone", Endpoint: "eth0", InterfaceName: "cali0123456789a"},
		})}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m.nothingLeft()
}
