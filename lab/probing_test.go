package lab

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// frame makes an Ethernet frame with an IP header and what is given behind it.
func frame(from, to netip.Addr, protocol byte, transport []byte) []byte {
	b := make([]byte, 14, 128)
	if from.Is4() {
		binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)
		header := make([]byte, 20)
		header[0], header[9] = 0x45, protocol
		copy(header[12:], from.AsSlice())
		copy(header[16:], to.AsSlice())
		return append(append(b, header...), transport...)
	}
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IPV6)
	header := make([]byte, 40)
	header[0], header[6] = 0x60, protocol
	copy(header[8:], from.AsSlice())
	copy(header[24:], to.AsSlice())
	return append(append(b, header...), transport...)
}

func TestParseProbe(t *testing.T) {
	ports := []byte{0x30, 0x39, 0, 80}
	tcp := func(flags byte) []byte {
		return append(append([]byte{}, ports...), 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0)
	}
	udp := append(append([]byte{}, ports...), 0, 8, 0, 0)
	for _, ends := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fd00::1", "fd00::2"}} {
		from, to := netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1])
		for _, c := range []struct {
			what      string
			protocol  byte
			transport []byte
			ok, opens bool
		}{
			{"UDP", 17, udp, true, true},
			{"SYN", 6, tcp(2), true, true},
			{"SYN and ACK", 6, tcp(0x12), true, true},
			{"RST", 6, tcp(0x14), true, false},
			{"ACK", 6, tcp(0x10), false, false},
			{"short UDP", 17, udp[:7], false, false},
			{"short TCP", 6, tcp(2)[:19], false, false},
			{"ICMP", 1, udp, false, false},
		} {
			got, ok := parseProbe(frame(from, to, c.protocol, c.transport))
			if ok != c.ok || ok && (got.opens != c.opens || got.from != netip.AddrPortFrom(from, 12345) || got.to != netip.AddrPortFrom(to, 80)) {
				t.Errorf("%s from %v: %+v, %v", c.what, from, got, ok)
			}
		}
	}
}

func FuzzParseProbe(f *testing.F) {
	f.Add(frame(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 17, make([]byte, 8)))
	f.Add(frame(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 6, make([]byte, 20)))
	f.Fuzz(func(t *testing.T, b []byte) { parseProbe(b) })
}

// What became of a probe, by the packets that were seen.
func TestProbeJudged(t *testing.T) {
	silent := os.ErrDeadlineExceeded
	for _, c := range []struct {
		what  string
		probe flying
		bare  bool // not between pods
		want  ProbeResult
	}{
		{"answered", flying{left: 1, arrived: 1, answerLeft: 1, returned: 1}, false, ProbeResult{Sent: 1, Answered: 1, Arrived: 1}},
		{"dropped before the target", flying{left: 1, err: silent}, false, ProbeResult{Sent: 1, Lost: 1, LostThere: 1}},
		{"answer dropped", flying{left: 1, arrived: 1, answerLeft: 1, err: silent}, false, ProbeResult{Sent: 1, Arrived: 1, Lost: 1, LostBack: 1}},
		{"the target is slow", flying{left: 1, arrived: 1, err: silent}, false, ProbeResult{Sent: 1, Arrived: 1}},
		{"the prober is slow", flying{left: 1, arrived: 1, answerLeft: 1, returned: 1, err: silent}, false, ProbeResult{Sent: 1, Arrived: 1}},
		{"a SYN was sent twice", flying{left: 2, arrived: 1, answerLeft: 1, returned: 1}, false, ProbeResult{Sent: 1, Answered: 1, Arrived: 1, Lost: 1, LostThere: 1}},
		{"refused", flying{left: 1, arrived: 1, answerLeft: 1, returned: 1, err: unix.ECONNREFUSED}, false, ProbeResult{Sent: 1, Refused: 1, Arrived: 1}},
		{"not sent", flying{unsent: true, err: unix.ENETUNREACH}, false, ProbeResult{Unsent: 1, Reason: "network is unreachable"}},
		{"from a node, answered", flying{}, true, ProbeResult{Sent: 1, Answered: 1}},
		{"from a node, silence", flying{err: silent}, true, ProbeResult{Sent: 1, Lost: 1}},
		{"from a node, refused", flying{err: unix.ECONNREFUSED}, true, ProbeResult{Sent: 1, Refused: 1}},
	} {
		f := &probed{watched: !c.bare}
		c.probe.flow = f
		f.add(&c.probe, false)
		f.result.LongestGap = 0
		if got := f.result; got.String() != c.want.String() || got.Sent != c.want.Sent || got.Lost != c.want.Lost || got.Arrived != c.want.Arrived {
			t.Errorf("%s: %v, %+v", c.what, got, got)
		}
	}
}

// The longest gap counts from the first probe and to the last.
func TestProbeGap(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	for _, c := range []struct {
		answered []int
		want     time.Duration
	}{
		{[]int{0, 10, 20, 30}, 10 * time.Millisecond},
		{[]int{0, 30}, 30 * time.Millisecond},
		{[]int{20, 30}, 20 * time.Millisecond},
		{[]int{0, 5}, 25 * time.Millisecond},
		{nil, 30 * time.Millisecond},
	} {
		f := &probed{first: begin, good: begin, last: at(30)}
		for _, ms := range c.answered {
			f.add(&flying{flow: f, sent: at(ms)}, false)
		}
		f.gap(f.last)
		if f.result.LongestGap != c.want {
			t.Errorf("answered at %v of 0 to 30 ms: %v, want %v", c.answered, f.result.LongestGap, c.want)
		}
	}
}

func TestProbeVerdict(t *testing.T) {
	good := ProbeResult{Sent: 2, Answered: 2, Arrived: 2}
	for _, c := range []struct {
		denied bool
		result ProbeResult
		want   string
	}{
		{false, good, ""},
		{true, good, "2 of 2 probes arrived"},
		{false, ProbeResult{Sent: 2, Answered: 1, Lost: 1}, "1 of 2 probes were lost"},
		{true, ProbeResult{Sent: 2, Lost: 2}, ""},
		{true, ProbeResult{Sent: 2, Lost: 2, Arrived: 1}, "1 of 2 probes arrived"},
		{true, ProbeResult{Sent: 2, Lost: 1, Answered: 1}, "1 of 2 probes arrived"},
		{true, ProbeResult{Sent: 2, Lost: 1, Refused: 1}, "1 of 2 probes arrived"},
		{false, ProbeResult{Sent: 2, Refused: 2}, "were refused"},
		{false, ProbeResult{}, "no probe was sent"},
		{true, ProbeResult{Unsent: 1}, "no probe was sent"},
	} {
		err := ProbeRequest{Denied: c.denied}.judge([]ProbeResult{c.result})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("denied %v, %+v: %v, want %q", c.denied, c.result, err, c.want)
		}
	}
}

// TestProbePortInUse: a source port that somebody at the sender has is passed over.
func TestProbePortInUse(t *testing.T) {
	target, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		if _, from, err := target.ReadFrom(make([]byte, 512)); err == nil {
			target.WriteTo([]byte("answer"), from)
		}
	}()
	taken, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.LocalAddr().(*net.UDPAddr).Port
	ports := []uint16{uint16(port), 0}
	p := &prober{
		request: ProbeRequest{UDP: true}, flying: map[uint16]*flying{},
		ports: func() uint16 { next := ports[0]; ports = ports[1:]; return next },
	}
	f := &probed{to: target.LocalAddr().(*net.UDPAddr).AddrPort()}
	p.flows = []*probed{f}
	var waiters sync.WaitGroup
	p.one(f, &waiters)
	waiters.Wait()
	if results, _ := p.results(); results[0].Answered != 1 || results[0].Unsent != 0 {
		t.Errorf("%+v", results[0])
	}
}

func TestProbeValidate(t *testing.T) {
	flow := []ProbeFlow{{"a", "b:80"}}
	for _, bad := range []ProbeRequest{
		{Rate: 1},
		{Flows: flow},
		{Flows: flow, Rate: -1},
		{Flows: flow, Rate: MaxProbeRate + 1},
		{Flows: append(flow, flow...), Rate: MaxProbeRate},
		{Flows: flow, Rate: 1, For: -1},
	} {
		if bad.validate() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if err := (ProbeRequest{Flows: flow, Rate: MaxProbeRate}).validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range [][]string{nil, {"a"}, {"a", "b:80", "c"}} {
		if _, err := ParseProbeFlows(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if !refused(errors.Join(unix.ECONNREFUSED)) {
		t.Error("a joined error is not told")
	}
}
