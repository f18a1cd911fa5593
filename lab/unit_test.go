package lab

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestParsePodName(t *testing.T) {
	for _, c := range []struct {
		in   string
		want PodName
		ok   bool
	}{
		{"a", PodName{"ns", "a"}, true},
		{"web/a-1.b", PodName{"web", "a-1.b"}, true},
		{"web/", PodName{}, false},
		{"/a", PodName{}, false},
		{"A", PodName{}, false},
		{"a/b/c", PodName{}, false},
		{"a..b", PodName{}, false},
		{"-a", PodName{}, false},
		{strings.Repeat("a", 64), PodName{}, false},
		{strings.Repeat("a.", 126) + "a", PodName{"ns", strings.Repeat("a.", 126) + "a"}, true},
		{strings.Repeat("a.", 127) + "a", PodName{}, false},
	} {
		got, err := ParsePodName(c.in, "ns")
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %v, %v", c.in, got, err)
		}
	}
}

func TestSplitTarget(t *testing.T) {
	for _, c := range []struct {
		in, host string
		port     uint16
		ok       bool
	}{
		{"a:80", "a", 80, true},
		{"web/a:65535", "web/a", 65535, true},
		{"[fd00::1]:80", "fd00::1", 80, true},
		{"10.0.0.1:80", "10.0.0.1", 80, true},
		{"a", "", 0, false},
		{"a:0", "", 0, false},
		{"a:65536", "", 0, false},
		{":80", "", 0, false},
	} {
		host, port, err := splitTarget(c.in)
		if (err == nil) != c.ok || host != c.host || port != c.port {
			t.Errorf("%q: %q %d %v", c.in, host, port, err)
		}
	}
}

// The underlay never overlaps a pool: else pods would be neighbours of nodes.
func TestPlanAvoidsPools(t *testing.T) {
	for _, pool := range []string{"10.10.0.0/16", "172.30.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16"} {
		for _, pool6 := range []string{"fd00:10::/48", "fd00::/16", "fd00:172::/32"} {
			o := Options{Pool: netip.MustParsePrefix(pool), Pool6: netip.MustParsePrefix(pool6)}
			net4, net6 := plan(o)
			if net4.Overlaps(o.Pool) || net6.Overlaps(o.Pool6) {
				t.Errorf("pools %v and %v: underlay %v and %v", o.Pool, o.Pool6, net4, net6)
			}
		}
	}
}

// The example of RFC 1071, section 3.
func TestChecksum(t *testing.T) {
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("checksum %#x, want %#x", got, ^uint16(0xddf2))
	}
}

func TestRouteLine(t *testing.T) {
	_, block, _ := net.ParseCIDR("10.10.1.0/26")
	_, pod, _ := net.ParseCIDR("10.10.1.5/32")
	_, all, _ := net.ParseCIDR("0.0.0.0/0")
	_, all6, _ := net.ParseCIDR("::/0")
	names := map[int]string{2: "eth0", 3: "vxlan.calico", 4: "cali0123456789a", 5: "tunl0"}
	for _, c := range []struct {
		want  string
		route vnl.Route
	}{
		{"10.10.1.0/26 via 10.10.1.0 dev vxlan.calico proto 80 onlink",
			vnl.Route{Dst: block, Gw: block.IP, LinkIndex: 3, Protocol: 80, Type: unix.RTN_UNICAST, Flags: unix.RTNH_F_ONLINK}},
		{"10.10.1.0/26 via 172.30.0.3 dev tunl0 proto 80 onlink",
			vnl.Route{Dst: block, Gw: net.IPv4(172, 30, 0, 3), LinkIndex: 5, Protocol: 80, Type: unix.RTN_UNICAST, Flags: unix.RTNH_F_ONLINK}},
		{"blackhole 10.10.1.0/26 proto 80", vnl.Route{Dst: block, Protocol: 80, Type: unix.RTN_BLACKHOLE, LinkIndex: 1}},
		{"10.10.1.5 dev cali0123456789a scope link",
			vnl.Route{Dst: pod, LinkIndex: 4, Protocol: unix.RTPROT_BOOT, Type: unix.RTN_UNICAST, Scope: vnl.SCOPE_LINK, Family: unix.AF_INET}},
		{"default via 10.0.0.1 dev eth0 proto static metric 5",
			vnl.Route{Dst: all, Gw: net.IPv4(10, 0, 0, 1), LinkIndex: 2, Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNICAST, Priority: 5}},
		{"default dev eth0 proto ra", vnl.Route{Dst: all6, LinkIndex: 2, Protocol: unix.RTPROT_RA, Type: unix.RTN_UNICAST, Family: unix.AF_INET6}},
	} {
		if got := routeLine(c.route, names); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

// Of a log the line that says why counts, not what follows it.
func TestLastWords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for _, c := range []struct{ log, want string }{
		{"", "it printed nothing"},
		{"calico: a\n\n", "calico: a"},
		{"calico: a\n" + agentEnded + " exit status 1\n", "calico: a"},
		{"a\npanic: b\n\ngoroutine 1 [running]:\nmain.main()\n", "panic: b"},
		{`{"level":"fatal","msg":"no","error":"disk full"}` + "\npanic: no\n\ngoroutine 1\n", "no: disk full"},
		{`{"level":"info","msg":"yes"}`, "yes"},
	} {
		if err := os.WriteFile(file, []byte(c.log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastWords(file); got != c.want {
			t.Errorf("of %q: %q, want %q", c.log, got, c.want)
		}
	}
}

func TestHostname(t *testing.T) {
	for name, want := range map[string]string{
		"a":                             "a",
		strings.Repeat("a", 63) + ".b":  strings.Repeat("a", 63),
		strings.Repeat("a", 62) + ".bc": strings.Repeat("a", 62),
	} {
		if got := string(hostnameOf(name)); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// Whatever comes by on the wire is described, or passed over; nothing panics.
func FuzzDescribeFrame(f *testing.F) {
	ethernet := append(make([]byte, 12), 0x08, 0x00)
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	udp := []byte{0x12, 0xb5, 0x12, 0xb5, 0, 0, 0, 0}
	vxlan := []byte{8, 0, 0, 0, 0, 16, 0, 0}
	f.Add(ethernet)
	ipip := append([]byte{}, ip...)
	ipip[9] = 4
	f.Add(append(append(append([]byte{}, ethernet...), ipip...), ip...))
	f.Add(append(append(append(append(append([]byte{}, ethernet...), ip...), udp...), vxlan...), append(ethernet, ip...)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		describeFrame(b)
		p := pinger{to: netip.IPv6LinkLocalAllNodes()}
		p.parse(b)
		p.to = netip.IPv4Unspecified()
		p.parse(b)
	})
}

func TestDescribeVXLAN(t *testing.T) {
	ethernet := append(make([]byte, 12), 0x08, 0x00)
	outer := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	inner := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, echoRequest4, 0, 0, 0}
	udp := []byte{0x30, 0x39, 0x12, 0xb5, 0, 0, 0, 0}
	vxlan := []byte{8, 0, 0, 0, 0, 0x10, 0, 0}
	var frame []byte
	for _, part := range [][]byte{ethernet, outer, udp, vxlan, ethernet, inner} {
		frame = append(frame, part...)
	}
	const want = "10.0.0.1 > 10.0.0.2 UDP 12345 > 4789 VXLAN 4096: 10.9.0.1 > 10.9.0.2 echo request"
	if got := describeFrame(frame); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestDescribeIPIP(t *testing.T) {
	ethernet := append(make([]byte, 12), 0x08, 0x00)
	outer := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 4, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	inner := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, echoRequest4, 0, 0, 0}
	with := func(at int, b byte, inner ...byte) []byte {
		o := slices.Clone(outer)
		o[at] = b
		return slices.Concat(ethernet, o, inner)
	}
	for _, c := range []struct {
		frame []byte
		want  string
	}{
		{with(1, 0, inner...), "10.0.0.1 > 10.0.0.2 protocol 4 IPIP: 10.9.0.1 > 10.9.0.2 echo request"},
		{with(1, 0, with(1, 0, inner...)[14:]...), "10.0.0.1 > 10.0.0.2 protocol 4 IPIP: 10.0.0.1 > 10.0.0.2 protocol 4 IPIP: 10.9.0.1 > 10.9.0.2 echo request"},
		{with(7, 2, inner...), "10.0.0.1 > 10.0.0.2 protocol 4, fragment at 16"},
		{with(1, 0, inner[:10]...), "10.0.0.1 > 10.0.0.2 protocol 4"},
		{with(1, 0, append([]byte{0x60}, inner[1:]...)...), "10.0.0.1 > 10.0.0.2 protocol 4"},
		{with(0, 0x41, inner...), ""},
	} {
		if got := describeFrame(c.frame); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

func TestMissingFeature(t *testing.T) {
	f := feature{what: "VXLAN devices", module: "vxlan"}
	if err := f.missing(unix.EOPNOTSUPP); !strings.Contains(err.Error(), "modprobe vxlan") {
		t.Errorf("%v", err)
	}
	if err := f.missing(unix.EPERM); strings.Contains(err.Error(), "modprobe") {
		t.Errorf("lack of permission is taken for a lack of the feature: %v", err)
	}
}
