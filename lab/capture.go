package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CaptureRequest prints the IP packets that pass a node's link to the underlay.
type CaptureRequest struct {
	Node  string
	Match string        // only packets whose line contains it
	Count int           // 0: no limit
	For   time.Duration // 0: until the client hangs up
}

// capture prints a first line when it listens, then one for each packet.
func (s *Supervisor) capture(c *call, r CaptureRequest) (any, error) {
	n, err := s.nodeNamed(r.Node)
	if err != nil {
		return nil, err
	}
	link, err := s.link.host.LinkByName(n.name)
	if err != nil {
		return nil, fmt.Errorf("find the link of %s: %w", n.name, err)
	}
	fd, err := sniffer(link.Attrs().Index)
	if err != nil {
		return nil, fmt.Errorf("listen on the link of %s: %w", n.name, err)
	}
	defer unix.Close(fd)
	fmt.Fprintf(c, "listening on the link of %s\n", n.name)
	began, frame := time.Now(), make([]byte, 65536)
	for seen := 0; c.ctx.Err() == nil && (r.Count == 0 || seen < r.Count); {
		if r.For > 0 && time.Since(began) > r.For {
			break
		}
		size, _, err := unix.Recvfrom(fd, frame, 0)
		if err != nil {
			continue // the receive time-out
		}
		if line := describeFrame(frame[:size]); line != "" && strings.Contains(line, r.Match) {
			seen++
			fmt.Fprintln(c, line)
		}
	}
	return nil, nil
}

// sniffer is a packet socket on one device, of the caller's network namespace.
func sniffer(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	all := uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00) // network order
	tick := unix.Timeval{Usec: 50_000}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// describeFrame describes an Ethernet frame that carries IP; "" for others.
func describeFrame(b []byte) string {
	if len(b) < 14 {
		return ""
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_IP:
		return describe4(b[14:])
	case unix.ETH_P_IPV6:
		return describe6(b[14:])
	}
	return ""
}

func describe4(b []byte) string {
	if len(b) < 20 || b[0]>>4 != 4 || len(b) < int(b[0]&15)*4 || b[0]&15 < 5 {
		return ""
	}
	from, _ := netip.AddrFromSlice(b[12:16])
	to, _ := netip.AddrFromSlice(b[16:20])
	if offset := binary.BigEndian.Uint16(b[6:]) & 0x1fff; offset != 0 {
		return fmt.Sprintf("%v > %v protocol %d, fragment at %d", from, to, b[9], int(offset)*8)
	}
	return describeTransport(from, to, b[9], b[int(b[0]&15)*4:])
}

func describe6(b []byte) string {
	if len(b) < 40 {
		return ""
	}
	from, _ := netip.AddrFromSlice(b[8:24])
	to, _ := netip.AddrFromSlice(b[24:40])
	return describeTransport(from, to, b[6], b[40:])
}

const vxlanPort = 4789 // RFC 7348, section 5

func describeTransport(from, to netip.Addr, protocol byte, b []byte) string {
	pair := fmt.Sprintf("%v > %v", from, to)
	if (protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_UDP) && len(b) >= 8 {
		source, dest := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		name := "TCP"
		if protocol == unix.IPPROTO_UDP {
			name = "UDP"
		}
		text := fmt.Sprintf("%s %s %d > %d", pair, name, source, dest)
		if name == "UDP" && dest == vxlanPort && len(b) > 16 {
			vni := binary.BigEndian.Uint32(b[12:]) >> 8
			text += fmt.Sprintf(" VXLAN %d: %s", vni, describeFrame(b[16:]))
		}
		return text
	}
	if protocol == unix.IPPROTO_IPIP {
		if inner := describe4(b); inner != "" {
			return fmt.Sprintf("%s protocol 4 IPIP: %s", pair, inner)
		}
	}
	if len(b) > 0 {
		switch {
		case protocol == unix.IPPROTO_ICMP && b[0] == echoRequest4, protocol == unix.IPPROTO_ICMPV6 && b[0] == echoRequest6:
			return pair + " echo request"
		case protocol == unix.IPPROTO_ICMP && b[0] == echoReply4, protocol == unix.IPPROTO_ICMPV6 && b[0] == echoReply6:
			return pair + " echo reply"
		}
	}
	return fmt.Sprintf("%s protocol %d", pair, protocol)
}
