package felix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// Ports of the pod that is probed: one is allowed, one nobody allows, of one a policy allows more
// than it denies.
const (
	portAllowed = 80 + iota
	portNobodys
	portDenied
)

// wantedPolicy is two pods, of which one is governed by a policy whose rules use sets.
func wantedPolicy() *dataplane.Delta {
	s := dataplane.NewState()
	web := dataplane.PolicyID{Kind: "NetworkPolicy", Namespace: "default", Name: "web"}
	profile := dataplane.PolicyID{Kind: "Profile", Name: "all"}
	for i, iface := range []dataplane.Interface{"cali1", "cali2"} {
		addr := netip.AddrFrom4([4]byte{10, 65, 0, byte(i + 1)})
		s.Endpoints[iface] = &dataplane.Endpoint{Interface: iface, Addrs: []netip.Addr{addr}, Profiles: []dataplane.PolicyID{profile}}
		s.Routes[netip.PrefixFrom(addr, 32)] = dataplane.Route{Kind: dataplane.RouteWorkload, Device: string(iface)}
	}
	s.Endpoints["cali2"].Ingress = []dataplane.TierPolicies{{Tier: "default", Policies: []dataplane.PolicyID{web}, Default: dataplane.Deny}}
	s.Policies[profile] = &dataplane.Policy{ID: profile, Egress: []dataplane.Rule{{Action: dataplane.Allow}}, Ingress: []dataplane.Rule{{Action: dataplane.Allow}}}
	from := func(set dataplane.SetID) dataplane.Peer { return dataplane.Peer{Sets: []dataplane.SetID{set}} }
	to := func(ports ...uint16) (p dataplane.Peer) {
		for _, n := range ports {
			p.Ports = append(p.Ports, dataplane.PortRange{Min: n, Max: n})
		}
		return p
	}
	s.Policies[web] = &dataplane.Policy{ID: web, Ingress: []dataplane.Rule{
		{Action: dataplane.Deny, Protocol: unix.IPPROTO_UDP, Src: from("bad"), Dst: to(portDenied)},
		{Action: dataplane.Allow, Protocol: unix.IPPROTO_UDP, Src: from("good"), Dst: to(portAllowed, portDenied)},
	}}
	s.Sets["bad"] = dataplane.Members{{Prefix: prefix("10.65.0.0/24")}: {}, {Prefix: prefix("10.78.0.1/32")}: {}, {Prefix: prefix("10.78.1.0/24")}: {}}
	s.Sets["good"] = dataplane.Members{{Prefix: prefix("10.65.0.0/28")}: {}, {Prefix: prefix("10.77.0.1/32")}: {}, {Prefix: prefix("10.77.1.0/24")}: {}}
	return s.Delta()
}

// ofOthers is the least number of probes that are not of the stream.
const ofOthers = 1 << 30

// probes are datagrams from one pod to another, each of a flow of its own.
type probes struct {
	t    *testing.T
	mu   sync.Mutex
	sent uint32           // how many to each port
	got  map[uint32]bool  // which came to the port that is allowed
	last uint32           // of those
	bad  map[int][]uint32 // which came to the others
}

// podOf gives the agent's namespace a pod with the n-th address behind cali<n>, and returns its namespace.
func podOf(t *testing.T, ns, n int) int {
	t.Helper()
	pod := nstest.New(t)
	h, err := netlink.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	sh(t, ns, fmt.Sprintf(`ip link add cali%d address ee:ee:ee:ee:ee:ee type veth peer name pod%d address 02:00:00:00:00:0%d
		ip link set cali%d up; ip neigh add 10.65.0.%d lladdr 02:00:00:00:00:0%d nud permanent dev cali%d`, n, n, n, n, n, n, n))
	l, err := h.LinkByName(fmt.Sprint("pod", n))
	if err == nil {
		err = h.LinkSetNsFd(l, pod)
	}
	if err != nil {
		t.Fatal(err)
	}
	sh(t, pod, fmt.Sprintf(`ip link set lo up; ip link set pod%d up; ip addr add 10.65.0.%d/32 dev pod%d; ip route add 169.254.1.1 dev pod%d
		ip neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee nud permanent dev pod%d; ip route add default via 169.254.1.1`, n, n, n, n, n))
	return pod
}

// probe has one pod send to all ports of the other once a millisecond.
func probe(t *testing.T, from, to int) *probes {
	t.Helper()
	p := &probes{t: t, got: map[uint32]bool{}, bad: map[int][]uint32{}}
	stop := make(chan struct{})
	var all sync.WaitGroup
	var conns []net.PacketConn
	t.Cleanup(func() {
		close(stop)
		for _, c := range conns {
			c.Close()
		}
		all.Wait()
	})
	for port := portAllowed; port <= portDenied; port++ {
		var c net.PacketConn
		err := netlink.Do(to, func() (err error) { c, err = net.ListenPacket("udp4", fmt.Sprint(":", port)); return err })
		if err != nil {
			t.Fatal(err)
		}
		if err := roomyBuffer(c.(*net.UDPConn)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		all.Go(func() { p.receive(c, port) })
	}
	all.Go(func() {
		if err := netlink.Do(from, func() error { return p.send(stop) }); err != nil {
			t.Error(err)
		}
	})
	return p
}

// roomyBuffer has a socket hold what comes while the test is kept from reading, for seconds.
func roomyBuffer(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var errSet error
	err = raw.Control(func(fd uintptr) { errSet = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
	return errors.Join(err, errSet)
}

// pin keeps the calling thread on one of its CPUs. What it sends to a veth is queued on its own CPU up to the
// receiving socket, so that none of it overtakes another: what has not come when a later one has is lost.
func pin() error {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu := 0; ; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
			return unix.SchedSetaffinity(0, &one)
		}
	}
}

func (p *probes) receive(c net.PacketConn, port int) {
	buf := make([]byte, 100)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if n != 4 {
			continue
		}
		x := binary.BigEndian.Uint32(buf)
		p.mu.Lock()
		if port == portAllowed {
			if p.got[x] = true; x < ofOthers {
				p.last = max(p.last, x)
			}
		} else {
			p.bad[port] = append(p.bad[port], x)
		}
		p.mu.Unlock()
	}
}

func (p *probes) send(stop <-chan struct{}) error {
	if err := pin(); err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		p.mu.Lock()
		p.sent++
		n := p.sent
		p.mu.Unlock()
		for port := portDenied; port >= portAllowed; port-- {
			if err := sendProbe(port, n); err != nil {
				return err
			}
		}
	}
}

// sendProbe sends a probe as a flow of its own.
func sendProbe(port int, number uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, binary.BigEndian.AppendUint32(nil, number), 0, &unix.SockaddrInet4{Port: port, Addr: [4]byte{10, 65, 0, 2}})
}

// passed waits until a probe comes that is sent after now, and returns its number.
func (p *probes) passed(w *world) (n uint32) {
	p.t.Helper()
	p.mu.Lock()
	after := p.sent + 1 // the one before may be under way
	p.mu.Unlock()
	w.until("an allowed flow passes", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		n = p.last
		return n > after
	})
	return n
}

// lost counts the probes of numbers from first to last that did not come.
func (p *probes) lost(first, last uint32) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for x := first; x <= last; x++ {
		if !p.got[x] {
			n++
		}
	}
	return n
}

// holes tells what passed that nobody allows.
func (p *probes) holes() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.bad) == 0 {
		return ""
	}
	s := fmt.Sprint(p.bad)
	clear(p.bad)
	return s
}

// setWith is the name of the table's set that has an element that begins so.
func setWith(t *testing.T, ns int, element string) string {
	t.Helper()
	for _, s := range strings.Split(sh(t, ns, "nft list table ip calico"), "\n\tset ")[1:] {
		set, _, _ := strings.Cut(s, "\n\t}")
		if strings.Contains(set, element) {
			return strings.Fields(s)[0]
		}
	}
	t.Fatalf("no set has %s", element)
	return ""
}

// beforeAddress is what stands before an address in the element that has it.
func beforeAddress(t *testing.T, rules, addr string) string {
	t.Helper()
	m := regexp.MustCompile(`(\S+ \. )` + regexp.QuoteMeta(addr)).FindStringSubmatch(rules)
	if m == nil {
		t.Fatalf("no element has %s in\n%s", addr, rules)
	}
	return m[1]
}

// A repair opens nothing, and breaks nothing that the change had not broken.
func TestRepairUnderProbes(t *testing.T) {
	t.Parallel() // it waits most of its time
	w := &world{t: t, ns: nstest.New(t), wants: wantedPolicy}
	from, to := podOf(t, w.ns, 1), podOf(t, w.ns, 2)
	w.assemble(t) // it does not watch: one who goes on would be answered ever more rarely
	w.run()
	p := probe(t, from, to)
	first := p.passed(w)
	rules := func() string { return sh(t, w.ns, "nft list ruleset") }
	want := rules()
	chain := regexp.MustCompile(`chain (cali-pi-\S+) \{`).FindStringSubmatch(want)
	if chain == nil {
		t.Fatalf("no chain of the policy in\n%s", want)
	}
	good, goodNets := setWith(t, w.ns, "10.77.0.1"), setWith(t, w.ns, "10.77.1.0/24")
	bad, badNets := setWith(t, w.ns, "10.78.0.1"), setWith(t, w.ns, "10.78.1.0/24")
	// Single addresses share sets: each stands behind the number of the set it is of.
	goodOnes, badOnes := beforeAddress(t, want, "10.77.0.1"), beforeAddress(t, want, "10.78.0.1")
	for name, c := range map[string]struct {
		script string
		breaks bool // the change itself takes allowed flows away
	}{
		"a set too many":             {"nft 'add set ip calico junk { type ipv4_addr; elements = { 10.65.0.1 } }'", false},
		"a chain too many":           {"nft 'add chain ip calico junk; add rule ip calico junk accept'", false},
		"a rule that counts":         {"nft insert rule ip calico cali-FORWARD counter; nft insert rule ip calico " + chain[1] + " counter", false},
		"addresses among the good":   {"nft 'add element ip calico " + good + " { " + goodOnes + "10.80.0.1, " + goodOnes + "10.80.0.2 }; add element ip calico " + goodNets + " { 10.80.0.0/16, 10.64.0.0/24 }'", false},
		"addresses among the bad":    {"nft 'add element ip calico " + bad + " { " + badOnes + "10.80.0.1 }; add element ip calico " + badNets + " { 10.80.0.0/16, 10.64.0.0/24 }'", false},
		"other addresses not good":   {"nft 'delete element ip calico " + good + " { " + goodOnes + "10.77.0.1 }; delete element ip calico " + goodNets + " { 10.77.1.0/24 }'", false},
		"other addresses not bad":    {"nft 'delete element ip calico " + bad + " { " + badOnes + "10.78.0.1 }; delete element ip calico " + badNets + " { 10.78.1.0/24 }'", false},
		"nobody is good":             {"nft 'flush set ip calico " + goodNets + "; flush set ip calico " + good + "'", true},
		"nobody but another is good": {"nft 'flush set ip calico " + goodNets + "; add element ip calico " + goodNets + " { 10.65.0.8/29 }'", true},
		"no pod is known":            {"nft 'flush map ip calico cali-to-wl-dispatch; flush map ip calico cali-from-wl-dispatch'", true},
		"nothing is allowed":         {"nft flush chain ip calico " + chain[1], true},
		"all that and more": {"nft 'flush set ip calico " + goodNets + "; flush map ip calico cali-to-wl-dispatch; flush chain ip calico " + chain[1] +
			"; add set ip calico junk { type ipv4_addr; }; add element ip calico " + badNets + " { 10.80.0.0/16 }; add chain ip calico junk'", true},
	} {
		t.Run(name, func(t *testing.T) {
			w.t, p.t = t, t
			for range 5 {
				repairs := w.rules.Stats().Repairs
				sh(t, w.ns, c.script)
				w.agent.Resync(DriverRules)
				w.until("a repair", func() bool { return w.rules.Stats().Repairs > repairs && rules() == want })
				last := p.passed(w)
				if n := p.lost(first, last); n > 0 && !c.breaks {
					t.Errorf("of %d flows that are allowed %d did not pass", last-first+1, n)
				}
				first = last
				if s := p.holes(); s != "" {
					t.Errorf("denied flows passed: %s", s)
				}
			}
		})
	}
	sh(t, w.ns, "nft insert rule ip calico cali-FORWARD accept") // what would be seen of a hole
	w.until("a hole is seen", func() bool { return p.holes() != "" })
}
