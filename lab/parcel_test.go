package lab

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseParcels(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"tcp/80", []string{"tcp/80"}},
		{"udp/53,5353", []string{"udp/53", "udp/5353"}},
		{"sctp/65535", []string{"sctp/65535"}},
		{"udplite/7", []string{"udplite/7"}},
		{"ping", []string{"ping"}},
		{"icmp/8", []string{"icmp/8/0"}},
		{"icmp/13/1", []string{"icmp/13/1"}},
		{"icmp6/128/0", []string{"icmp6/128/0"}},
		{"200", []string{"200"}},
		{"4", []string{"4"}},
	} {
		got, err := ParseParcels(c.text)
		if err != nil || len(got) != len(c.want) {
			t.Errorf("%s: %v, %v", c.text, got, err)
			continue
		}
		for i, p := range got {
			if p.String() != c.want[i] {
				t.Errorf("%s: %v, want %s", c.text, p, c.want[i])
			}
		}
	}
	for _, bad := range []string{
		"", "tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/80,", "tcp/a", "icmp", "icmp/256", "icmp/8/256", "icmp/8/0/0",
		"6", "17", "0", "43", "44", "59", "60", "256", "-1", "200/1", "ping/1", "TCP/80",
	} {
		if got, err := ParseParcels(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}

// A parcel of every protocol is a packet that says what it is, ends with its tag and, where
// the protocol has one of that kind, has a right checksum.
func TestParcelDatagram(t *testing.T) {
	mark := tag{1, 2, 3, 4}
	for _, ends := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fd00::1", "fd00::2"}} {
		from, to := netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1])
		for _, text := range []string{"tcp/80", "udp/53", "udplite/7", "sctp/9", "ping", "200", "icmp/13/1", "icmp6/128/1"} {
			parcels, err := ParseParcels(text)
			if err != nil {
				t.Fatal(err)
			}
			p, ok := parcels[0].of(to.Is6())
			if !ok {
				continue
			}
			ethernet := append(make([]byte, 12), 0x08, 0)
			if to.Is6() {
				binary.BigEndian.PutUint16(ethernet[12:], unix.ETH_P_IPV6)
			}
			b := p.datagram(from, to, 61000, mark)
			got, ok := parseIP(append(append(ethernet, b...), 0, 0, 0)) // filled up
			if !ok || got.from != from || got.to != to || got.protocol != p.Protocol {
				t.Errorf("%s to %v: %+v, %v", text, to, got, ok)
				continue
			}
			if tag(got.body[len(got.body)-4:]) != mark {
				t.Errorf("%s to %v ends with %x", text, to, got.body)
			}
			if !rightSum(got) {
				t.Errorf("%s to %v: wrong checksum: %x", text, to, got.body)
			}
		}
	}
}

// rightSum checks a sum over pseudo header and body, of the protocols with such sums.
func rightSum(p ipPacket) bool {
	var pseudo []byte
	switch p.protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_ICMPV6:
		pseudo = append(append(p.from.AsSlice(), p.to.AsSlice()...), 0, p.protocol, 0, byte(len(p.body)))
	case unix.IPPROTO_ICMP:
	default:
		return true
	}
	return checksum(append(pseudo, p.body...)) == 0
}

// What a pod's interface shows of a packet: itself, or that somebody refuses it.
func TestLetterFound(t *testing.T) {
	from, to, router := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.9")
	l := &letter{to: to, sender: from, source: 61000, parcel: Parcel{Protocol: unix.IPPROTO_TCP, Port: 80}, tag: tag{9, 8, 7, 6}}
	m := &mail{letters: map[tag]*letter{l.tag: l}}
	packet := l.parcel.datagram(from, to, l.source, l.tag)
	reset := func(port uint16, flags byte) []byte {
		b := make([]byte, 20)
		binary.BigEndian.PutUint16(b, 80)
		binary.BigEndian.PutUint16(b[2:], port)
		b[13] = flags
		return b
	}
	unreachable := func(kind byte, quoted []byte) []byte { return append([]byte{kind, 13, 0, 0, 0, 0, 0, 0}, quoted...) }
	other := l.parcel.datagram(from, to, l.source, tag{1, 1, 1, 1})
	for _, c := range []struct {
		what  string
		frame []byte
		found bool
		how   string
	}{
		{"itself", frame(from, to, 6, packet[20:]), true, ""},
		{"another", frame(from, to, 6, other[20:]), false, ""},
		{"unreachable", frame(router, from, 1, unreachable(3, packet)), true, "ICMP type 3 code 13"},
		{"another unreachable", frame(router, from, 1, unreachable(3, other)), false, ""},
		{"unreachable, to somebody else", frame(router, to, 1, unreachable(3, packet)), false, ""},
		{"redirect", frame(router, from, 1, unreachable(5, packet)), false, ""},
		{"reset", frame(to, from, 6, reset(61000, 0x14)), true, "TCP reset"},
		{"reset of another flow", frame(to, from, 6, reset(61001, 0x14)), false, ""},
		{"answer", frame(to, from, 6, reset(61000, 0x12)), false, ""},
		{"short", frame(to, from, 6, []byte{0, 80}), false, ""},
	} {
		got, how := m.find(c.frame)
		if (got == l) != c.found || how != c.how {
			t.Errorf("%s: found %v, %q", c.what, got == l, how)
		}
	}
}

func TestParsePorts(t *testing.T) {
	got, err := ParsePorts([]string{"web=tcp/80", "dns=udp/53"})
	if err != nil || len(got) != 2 || got[0].Name != "web" || got[0].Port != 80 || got[1].Protocol != "udp" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "web", "web=", "web=80", "=tcp/80", "web=tcp/0", "web=tcp/65536", "web=icmp/8"} {
		if got, err := ParsePorts([]string{bad}); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}

func TestParseSettings(t *testing.T) {
	got, err := parseSettings([]string{"a=Drop", "b=1", "c=true", "d=", "e=x=y", `f=["g"]`})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": `"Drop"`, "b": "1", "c": "true", "d": "", "e": `"x=y"`, "f": `["g"]`} {
		if string(got[name]) != want {
			t.Errorf("%s: %s, want %s", name, got[name], want)
		}
	}
	for _, bad := range []string{"", "a", "=b"} {
		if _, err := parseSettings([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestLogLines(t *testing.T) {
	from, to := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	packet := Parcel{Protocol: unix.IPPROTO_UDP, Port: 53}.datagram(from, to, 61000, tag{})
	body := append(netlinkAttribute(nflogPrefix, []byte("denied: \x00")), netlinkAttribute(nflogPayload, packet)...)
	b := binary.NativeEndian.AppendUint32(nil, uint32(nlHeader+nfHeader+len(body)))
	b = binary.NativeEndian.AppendUint16(b, nflogPacket)
	b = append(append(b, make([]byte, 10+nfHeader)...), body...)
	got := logLines(append(b, b...))
	if want := "denied: 10.0.0.1 > 10.0.0.2 UDP 61000 > 53"; len(got) != 2 || got[0] != want || got[1] != want {
		t.Errorf("%q", got)
	}
}

func FuzzLogLines(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 0, 4})
	f.Fuzz(func(t *testing.T, b []byte) { logLines(b) })
}

func FuzzLetterFound(f *testing.F) {
	from, to := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	f.Add(frame(from, to, 6, make([]byte, 24)))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := &letter{to: to, sender: from, parcel: Parcel{Protocol: 6}}
		(&mail{letters: map[tag]*letter{l.tag: l}}).find(b)
	})
}
