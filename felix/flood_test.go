package felix

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// flood is as many allowed packets as one CPU can send, each of which asks all rules. Rules of others count
// them as they come in and as they go out.
type flood struct {
	w     *world
	from  int
	burst sync.WaitGroup
	stop  chan struct{}
	err   error
}

var ports = map[string]int{"allowed": portAllowed, "denied": portDenied}

// newFlood prepares a flood from one pod to the other, who reads none of it.
func newFlood(w *world, from, to int) *flood {
	w.t.Helper()
	for _, port := range ports {
		var c net.PacketConn
		err := netlink.Do(to, func() (err error) { c, err = net.ListenPacket("udp4", fmt.Sprint(":", port)); return err })
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { c.Close() })
	}
	script := "add table ip count; add chain ip count in { type filter hook prerouting priority raw; }; add chain ip count out { type filter hook postrouting priority 300; };"
	for name, port := range ports {
		script += fmt.Sprintf(`add counter ip count %[1]s-in; add counter ip count %[1]s-out
			add rule ip count in iifname cali1 udp dport %[2]d counter name %[1]s-in notrack
			add rule ip count out oifname cali2 udp dport %[2]d counter name %[1]s-out;`, name, port)
	}
	sh(w.t, w.ns, "nft '"+script+"'")
	return &flood{w: w, from: from}
}

// during floods as do does its work. It returns how many packets were sent that are allowed, how many of these did
// not pass, and how many passed that are denied.
func (f *flood) during(do func() error) (sent, lost, passed int) {
	f.w.t.Helper()
	before := f.counts()
	f.stop, f.err = make(chan struct{}), nil
	f.burst.Go(func() { f.err = netlink.Do(f.from, f.send) })
	f.w.until("packets pass", func() bool { return f.counts()["allowed-out"] > before["allowed-out"] })
	if err := do(); err != nil {
		f.w.t.Error(err)
	}
	on := f.counts()
	f.w.until("packets pass afterwards", func() bool { return f.counts()["allowed-out"] > on["allowed-out"] })
	close(f.stop)
	f.burst.Wait()
	if f.err != nil {
		f.w.t.Fatal(f.err)
	}
	after := f.counts()
	count := func(name string) int { return after[name] - before[name] }
	return count("allowed-in"), count("allowed-in") - count("allowed-out"), count("denied-out")
}

// send sends until stop, a denied packet behind every allowed one, and returns when all have been through the hooks.
func (f *flood) send() error {
	if err := pin(); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		select {
		case <-f.stop:
			return marker()
		default:
		}
		for _, port := range []int{portAllowed, portDenied} {
			if err := unix.Sendto(fd, []byte{1}, 0, &unix.SockaddrInet4{Port: port, Addr: [4]byte{10, 65, 0, 2}}); err != nil {
				return err
			}
		}
	}
}

// marker sends a packet by lo, which is queued on this CPU as those to a veth are, and waits for it.
func marker() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	self, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60}); err != nil {
		return err
	}
	if err := unix.Sendto(fd, []byte{1}, 0, self); err != nil {
		return err
	}
	_, _, err = unix.Recvfrom(fd, make([]byte, 1), 0)
	return err
}

var counterLine = regexp.MustCompile(`counter (\S+) \{\s*packets (\d+)`)

func (f *flood) counts() map[string]int {
	f.w.t.Helper()
	out := map[string]int{}
	for _, m := range counterLine.FindAllStringSubmatch(sh(f.w.t, f.w.ns, "nft list counters table ip count"), -1) {
		out[m[1]], _ = strconv.Atoi(m[2])
	}
	return out
}

// Switches and removals of a backend lose no packet that both backends allow, and pass none that both deny.
func TestSwitchInAFlood(t *testing.T) {
	requireIptables(t)
	w := &world{t: t, ns: nstest.New(t), wants: wantedPolicy}
	from, to := podOf(t, w.ns, 1), podOf(t, w.ns, 2)
	w.assemble(t)
	w.run()
	r, _ := driver[*rules](w.agent)
	f := newFlood(w, from, to)
	total := 0
	for _, c := range []choice{ofIptables("nft"), ofIptables("legacy"), {}, ofIptables("legacy"), {}} {
		sent, lost, passed := f.during(func() error {
			choose(r, c.backend, c.iptables.Variant)
			return syncAll(t, r)
		})
		if lost != 0 || passed != 0 || r.Backend() != c.backend {
			t.Errorf("to %v: of %d allowed packets %d were lost, and %d denied ones passed; %v is in use", c, sent, lost, passed, r.Backend())
		}
		total += sent
	}
	for range 6 { // with nothing of ours all that remains passes
		sent, lost, _ := f.during(func() error { return w.rules.Clean(t.Context()) })
		again, lostAgain, _ := f.during(func() error { return w.rules.Sync(t.Context()) })
		if lost != 0 || lostAgain != 0 {
			t.Errorf("of %d packets %d were lost as the table went, of %d as it came %d", sent, lost, again, lostAgain)
		}
		total += sent + again
	}
	t.Log(total, "packets")
}
