package felix

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/nft"
	"github.com/calicogo/calico/route"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/tunnel"
)

// world is a namespace with an agent's real drivers.
type world struct {
	t       *testing.T
	ns      int
	wants   func() *dataplane.Delta
	agent   *Agent
	rules   *nft.Driver
	routes  *route.Driver
	tunnels *tunnel.Driver
	inLoop  *inLoop
	begin   func(func(context.Context) error) // a part of the agent
	stop    func()                            // the agent
}

// sh runs a script in the namespace and returns what it prints.
func sh(t testing.TB, ns int, script string) string {
	t.Helper()
	for _, tool := range []string{"ip", "bridge", "nft"} {
		nstest.RequireTool(t, tool)
	}
	var out []byte
	err := netlink.Do(ns, func() (err error) {
		out, err = exec.Command("sh", "-ec", script).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%v\n%s%s", err, script, out)
	}
	return string(out)
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// wanted is what one pod, one other node behind a tunnel and one behind a router take.
func wanted() *dataplane.Delta {
	s := dataplane.NewState()
	s.Endpoints["cali1"] = &dataplane.Endpoint{Interface: "cali1", Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.1")}}
	s.Sets[dataplane.SetNodes] = dataplane.Members{{Prefix: prefix("192.168.0.2/32")}: {}}
	s.Tunnels[dataplane.DeviceVXLAN] = dataplane.Tunnel{
		Encap: dataplane.VXLAN, Family: dataplane.IPv4, Addr: netip.MustParseAddr("10.65.0.64"), MAC: "66:11:22:33:44:55",
		Underlay: netip.MustParseAddr("192.168.0.1"), VNI: 4096, Port: 4789,
	}
	s.VTEPs[dataplane.VTEPKey{Device: dataplane.DeviceVXLAN, Node: "n2"}] = dataplane.VTEP{
		Underlay: netip.MustParseAddr("192.168.0.2"), Addr: netip.MustParseAddr("10.65.1.0"), MAC: "66:11:22:33:44:66",
	}
	s.Routes[prefix("10.65.0.1/32")] = dataplane.Route{Kind: dataplane.RouteWorkload, Device: "cali1"}
	s.Routes[prefix("10.65.0.0/26")] = dataplane.Route{Kind: dataplane.RouteBlackhole}
	s.Routes[prefix("10.65.1.0/26")] = dataplane.Route{Kind: dataplane.RouteTunnel, Device: dataplane.DeviceVXLAN, Gateway: netip.MustParseAddr("10.65.1.0")}
	s.Routes[prefix("10.66.0.0/26")] = dataplane.Route{Kind: dataplane.RouteDirect, Gateway: netip.MustParseAddr("192.168.0.3")}
	return s.Delta()
}

// newWorld starts an agent, and has it watch, in a namespace with an underlay and a pod's device.
func newWorld(t *testing.T) *world {
	return newWorldOf(t, wanted)
}

func newWorldOf(t *testing.T, wants func() *dataplane.Delta) *world {
	w := &world{t: t, ns: nstest.New(t), wants: wants}
	sh(t, w.ns, `
		ip link add eth0 type veth peer name eth0p; ip link set eth0p up; ip link set eth0 up; ip addr add 192.168.0.1/24 dev eth0
		ip link add cali1 type veth peer name pod1; ip link set pod1 up; ip link set cali1 up
		ip link add docker0 type veth peer name docker0p; ip link set docker0p up; ip link set docker0 up; ip addr add 172.17.0.1/16 dev docker0
		ip route add 10.99.0.0/16 via 192.168.0.9; ip route add 10.98.0.0/16 dev docker0 proto bird; ip neigh add 172.17.0.9 lladdr 02:00:00:00:00:09 dev docker0
		ip rule add from 10.97.0.0/16 table 77; ip route add default via 192.168.0.8 table 77
		nft 'add table ip other; add chain ip other c; add rule ip other c counter accept'`)
	w.start(t)
	return w
}

// start runs an agent that watches, until stop or the test's end.
func (w *world) start(t *testing.T) {
	w.assemble(t)
	w.watch()
	w.run()
}

func (w *world) watch() {
	agent := w.agent
	w.begin(func(ctx context.Context) error { return agent.Watch(ctx, w.ns) })
	w.until("it watches", func() bool {
		agent.mu.Lock()
		defer agent.mu.Unlock()
		return agent.pending.resync[DriverRules] && agent.pending.resync[DriverRoutes]
	})
}

func (w *world) run() {
	w.begin(w.agent.Run)
	w.agent.Update(store.Update{Revision: 1, InSync: true})
	w.until("the first sync", func() bool { s, _ := w.agent.Status(); return s.Revision == 1 && len(s.Problems) == 0 })
}

// assemble makes an agent of new drivers.
func (w *world) assemble(t *testing.T) {
	h, err := netlink.Open(w.ns)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	drivers, closeDrivers, err := KernelDrivers(w.ns, h, log)
	if err != nil {
		t.Fatal(err)
	}
	w.inLoop = &inLoop{}
	w.agent = New(Config{Node: "n1", Log: log, Drivers: append([]Driver{{"test", w.inLoop}}, drivers...)})
	if r, ok := driver[*rules](w.agent); ok {
		w.rules = r.nft
	}
	w.routes, _ = driver[*route.Driver](w.agent)
	w.tunnels, _ = driver[*tunnel.Driver](w.agent)
	for _, d := range drivers {
		d.Update(w.wants())
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	w.begin = func(f func(context.Context) error) {
		parts.Go(func() {
			if err := f(ctx); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	w.stop = sync.OnceFunc(func() {
		cancel()
		parts.Wait()
		closeDrivers()
		h.Close()
	})
	t.Cleanup(w.stop)
}

// inLoop is a driver that does what a test would have done in the agent's loop, where alone some drivers may be told
// of changes, before the others are synced.
type inLoop struct {
	mu   sync.Mutex
	todo []func()
}

func (l *inLoop) Update(*dataplane.Delta) {}
func (l *inLoop) Resync()                 {}

func (l *inLoop) Sync(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.todo {
		f()
	}
	l.todo = nil
	return nil
}

// do has the agent's loop do f soon, and bring the kernel to what comes of it.
func (w *world) do(f func()) {
	w.inLoop.mu.Lock()
	w.inLoop.todo = append(w.inLoop.todo, f)
	w.inLoop.mu.Unlock()
	w.agent.Resync()
}

// until waits for a condition.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			s, _ := w.agent.Status()
			w.t.Fatalf("%s: not so in time; %+v", what, s)
		}
	}
}

// kernel is all that the kernel has of ours and of others.
func (w *world) kernel() string {
	return sh(w.t, w.ns, `
		ip route show table all | grep -v -e fe80 -e ff00 | sort; ip -6 route show proto 80; ip rule
		ip neigh show nud permanent | sort; bridge fdb show dev vxlan.calico 2>&1 | sort || true
		ip -d link show dev vxlan.calico 2>&1 | grep -v '^[0-9]*: ' | sed 's/vxlan id/id/' || true; ip -br addr show dev vxlan.calico 2>&1 || true
		nft list ruleset; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/cali1/forwarding /proc/sys/net/ipv6/conf/all/forwarding`)
}

type counts struct {
	rules   nft.Stats
	routes  route.Stats
	tunnels tunnel.Stats
}

func (w *world) counts() counts { return counts{w.rules.Stats(), w.routes.Stats(), w.tunnels.Stats()} }

// What others remove or change is put back, and what is theirs stays.
func TestDriftIsMended(t *testing.T) {
	t.Parallel() // it waits most of its time
	w := newWorld(t)
	want := w.kernel()
	for name, script := range map[string]string{
		"a pod's route is removed":           "ip route del 10.65.0.1",
		"a pod's route is changed":           "ip route replace 10.65.0.1 dev docker0 proto 80",
		"a tunnel route is removed":          "ip route del 10.65.1.0/26",
		"a tunnel route is changed":          "ip route replace 10.65.1.0/26 via 10.65.1.9 dev vxlan.calico onlink proto 80",
		"a blackhole is removed":             "ip route del blackhole 10.65.0.0/26 proto 80",
		"a direct route is removed":          "ip route del 10.66.0.0/26",
		"a direct route goes elsewhere":      "ip route replace 10.66.0.0/26 via 192.168.0.4 proto 80",
		"a route is added":                   "ip route add 10.67.0.0/26 via 192.168.0.4 proto 80",
		"a route is added to a pod":          "ip route add 10.67.0.1 dev cali1",
		"a route is appended":                "ip route append 10.66.0.0/26 via 192.168.0.4 proto 80",
		"a neighbour is removed":             "ip neigh del 10.65.1.0 dev vxlan.calico",
		"a neighbour is changed":             "ip neigh replace 10.65.1.0 lladdr 02:00:00:00:00:01 nud permanent dev vxlan.calico",
		"a neighbour is no longer permanent": "ip neigh replace 10.65.1.0 lladdr 66:11:22:33:44:66 nud stale dev vxlan.calico",
		"a neighbour is added":               "ip neigh add 10.65.1.9 lladdr 02:00:00:00:00:01 nud permanent dev vxlan.calico",
		"a forwarding entry is removed":      "bridge fdb del 66:11:22:33:44:66 dev vxlan.calico",
		"a forwarding entry is changed":      "bridge fdb replace 66:11:22:33:44:66 dst 192.168.0.7 dev vxlan.calico",
		"a forwarding entry is added":        "bridge fdb add 02:00:00:00:00:01 dst 192.168.0.7 dev vxlan.calico",
		"the tunnel is removed":              "ip link del vxlan.calico",
		"the tunnel is down":                 "ip link set vxlan.calico down",
		"the tunnel has another MTU":         "ip link set vxlan.calico mtu 1300",
		"the tunnel has no address":          "ip addr del 10.65.0.64/32 dev vxlan.calico",
		"the tunnel has one address more":    "ip addr add 10.65.0.65/32 dev vxlan.calico",
		"a pod's device goes down and up":    "ip link set cali1 down; ip link set cali1 up",
		"a pod's device has an address":      "ip addr add 192.0.2.9/32 dev cali1; ip addr del 192.0.2.9/32 dev cali1",
		"a pod's device is replaced":         "ip link del cali1; ip link add cali1 type veth peer name pod1; ip link set pod1 up; ip link set cali1 up",
		"forwarding is off":                  "echo 0 > /proc/sys/net/ipv4/ip_forward",
		"a pod's forwarding is off":          "echo 0 > /proc/sys/net/ipv4/conf/cali1/forwarding",
		"forwarding of IPv6 is off":          "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
		"a rule is inserted":                 "nft insert rule ip calico cali-FORWARD accept",
		"a chain is emptied":                 "nft flush chain ip calico cali-FORWARD",
		"a map is emptied":                   "nft flush map ip6 calico cali-to-wl-dispatch; nft flush map ip calico cali-to-wl-dispatch",
		"the rules are gone":                 "nft delete table ip calico; nft delete table ip6 calico",
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			sh(t, w.ns, script)
			got := ""
			defer func() {
				if t.Failed() {
					t.Logf("got\n%s\nwant\n%s", got, want)
				}
			}()
			w.until("what it was", func() bool {
				got = w.kernel()
				return strings.Join(strings.Fields(got), " ") == strings.Join(strings.Fields(want), " ")
			})
		})
	}
}

// A link that leaves a bridge is told of as deleted from it. It is there all the same, and what goes
// by it is followed further.
func TestUnderlayThatWasInABridge(t *testing.T) {
	t.Parallel() // it waits most of its time
	w := newWorld(t)
	sh(t, w.ns, "ip link add br0 type bridge; ip link set eth0 master br0; ip link set eth0 nomaster; ip link del br0")
	time.Sleep(3 * settle) // what came of that is done with: what follows is noticed for itself
	sh(t, w.ns, "ip link set eth0 mtu 1400")
	w.until("the tunnel's MTU follows", func() bool {
		return strings.Contains(sh(t, w.ns, "ip link show dev vxlan.calico"), "mtu 1350")
	})
}

// An agent that starts where all is as it must be writes nothing.
func TestRestartWritesNothing(t *testing.T) {
	w := newWorld(t)
	want := w.kernel()
	w.stop()
	w.start(t)
	c := w.counts()
	if c.rules.Transactions != 0 || c.routes.Writes != 0 || c.tunnels.Writes != 0 {
		t.Errorf("a restarted agent wrote: %+v", c)
	}
	if c.rules.Reads != 2 || c.routes.Lists != 1 {
		t.Errorf("a restarted agent read too much or too little: %+v", c)
	}
	if got := w.kernel(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What others change after the first sync and before the agent watches is mended when it does.
func TestWatchThatBeginsLate(t *testing.T) {
	w := newWorld(t)
	want := w.kernel()
	w.stop()
	w.assemble(t)
	w.run()
	sh(t, w.ns, `echo 0 > /proc/sys/net/ipv4/ip_forward; ip route del 10.66.0.0/26; bridge fdb del 66:11:22:33:44:66 dev vxlan.calico; nft insert rule ip calico cali-FORWARD accept`)
	agent := w.agent
	w.begin(func(ctx context.Context) error { return agent.Watch(ctx, w.ns) })
	w.until("what it was", func() bool { return w.kernel() == want })
}

// Where changes went by untold, all that rtnetlink tells of is looked at.
func TestLostChangesAreMended(t *testing.T) {
	w := newWorld(t)
	want := w.kernel()
	w.stop()
	w.assemble(t)
	w.run()
	h, err := netlink.Open(w.ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	sh(t, w.ns, "echo 0 > /proc/sys/net/ipv4/ip_forward; ip route del 10.66.0.0/26; bridge fdb del 66:11:22:33:44:66 dev vxlan.calico")
	l := &links{a: w.agent, h: h, routes: w.routes, tunnels: w.tunnels}
	if !l.saw(netlink.Event{Lost: true}) {
		t.Error("nothing to do")
	}
	w.agent.Resync()
	w.until("what it was", func() bool { return w.kernel() == want })
}

// A pod that comes and goes, and whatever others do with what is theirs, has nothing read
// back, however many routes there are.
func TestNothingIsReadBackForNothing(t *testing.T) {
	w := newWorld(t)
	pod := func(script string, route *dataplane.Route, ep *dataplane.Endpoint) {
		t.Helper()
		delta := dataplane.NewDelta()
		delta.Routes[prefix("10.65.0.2/32")] = route
		delta.Endpoints["cali2"] = ep
		update := func() {
			done := make(chan struct{})
			w.do(func() {
				defer close(done)
				for _, d := range w.agent.cfg.Drivers {
					if d.Name != "test" {
						d.Update(delta)
					}
				}
			})
			w.until("the drivers are told", func() bool {
				select {
				case <-done:
					return true
				default:
					return false
				}
			})
		}
		if ep == nil { // else a device is missed that goes long before its record does, on a busy machine
			update()
		}
		sh(t, w.ns, script)
		if ep != nil {
			update()
		}
	}
	quietDown := func() { // the last of the events has been seen when a change of ours, behind them, is mended
		t.Helper()
		sh(t, w.ns, "ip route del blackhole 10.65.0.0/26 proto 80; nft flush map ip calico cali-to-wl-dispatch")
		w.until("mended", func() bool {
			return strings.Contains(sh(t, w.ns, "ip route; nft list map ip calico cali-to-wl-dispatch"), "blackhole") &&
				strings.Contains(sh(t, w.ns, "nft list map ip calico cali-to-wl-dispatch"), "cali1")
		})
	}
	quietDown()
	before := w.counts()
	for range 3 {
		pod("ip link add cali2 type veth peer name pod2; ip link set pod2 up; ip link set cali2 up",
			&dataplane.Route{Kind: dataplane.RouteWorkload, Device: "cali2"},
			&dataplane.Endpoint{Interface: "cali2", Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.2")}})
		w.until("the pod's route", func() bool { return strings.Contains(sh(t, w.ns, "ip route"), "10.65.0.2 dev cali2") })
		pod("ip link del cali2", nil, nil)
		w.until("no route", func() bool { return !strings.Contains(sh(t, w.ns, "ip route"), "10.65.0.2") })
	}
	sh(t, w.ns, `ip route add 10.96.0.0/16 via 172.17.0.8; ip route del 10.96.0.0/16; ip neigh replace 172.17.0.7 lladdr 02:00:00:00:00:07 dev docker0; ip neigh del 172.17.0.7 dev docker0
		ip link add veth77 type veth peer name veth78; ip link set veth77 up; ip link set veth78 up; ip link set veth77 down; ip link del veth77
		ip route add 10.95.0.0/16 dev docker0 proto bird; ip route del 10.95.0.0/16
		nft 'add table inet calico; add chain inet calico c; delete table inet calico; add rule ip other c accept'`)
	quietDown()
	after := w.counts()
	if n := after.rules.Reads - before.rules.Reads; n != 2 {
		t.Errorf("the tables were read %d times, want 2 for what we changed by hand", n)
	}
	if n := after.routes.Lists - before.routes.Lists; n != 0 {
		t.Errorf("the routes were read %d times", n)
	}
	if n := after.tunnels.Lists - before.tunnels.Lists; n != 0 {
		t.Errorf("tunnels were read %d times", n)
	}
}

// Whoever keeps changing our table is named, and does not have us do nothing else.
func TestRestlessMeddler(t *testing.T) {
	t.Parallel() // it waits most of its time
	w := newWorld(t)
	before := w.counts().rules.Reads
	const script = "nft insert rule ip calico cali-FORWARD accept"
	n := 0
	w.until("a problem that names nft", func() bool {
		sh(t, w.ns, script)
		n++
		s, _ := w.agent.Status()
		for _, p := range s.Problems {
			if strings.Contains(p.Message, "nft keeps changing table calico (rule of chain cali-FORWARD added") {
				return true
			}
		}
		return false
	})
	if reads := w.counts().rules.Reads - before; reads > 2*n {
		t.Errorf("%d reads for %d changes", reads, n)
	}
	w.until("the chain is mended in the end", func() bool {
		return !strings.Contains(sh(t, w.ns, "nft list chain ip calico cali-FORWARD"), "\n\t\taccept\n")
	})
}
