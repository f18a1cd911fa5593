package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// ICMP and ICMPv6 echo (RFC 792, RFC 4443 section 4).
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	unreachable4             = 3
	unreachable6             = 1
)

// pinger is a raw ICMP socket in some network namespace.
type pinger struct {
	conn *net.IPConn
	to   netip.Addr
	id   uint16
}

// newPinger makes the socket in the caller's network namespace.
func newPinger(to netip.Addr, id uint16) (*pinger, error) {
	network := "ip4:1"
	if to.Is6() {
		network = "ip6:58"
	}
	conn, err := net.ListenIP(network, nil)
	if err != nil {
		return nil, err
	}
	p := &pinger{conn: conn, to: to, id: id}
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		if to.Is6() {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
		} else {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
		}
	})
	if err := errors.Join(err, optErr); err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask for the TTL of packets: %w", err)
	}
	return p, nil
}

// send sends an echo request of 64 bytes.
func (p *pinger) send(seq uint16) error {
	b := make([]byte, 64)
	b[0] = echoRequest4
	if p.to.Is6() {
		b[0] = echoRequest6
	}
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], seq)
	if p.to.Is4() { // the kernel does it for ICMPv6 (RFC 3542, 3.1)
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	_, err := p.conn.WriteToIP(b, &net.IPAddr{IP: p.to.AsSlice(), Zone: p.to.Zone()})
	return err
}

// reply is what came back.
type reply struct {
	from        netip.Addr
	seq         uint16
	ttl         int
	size        int
	unreachable bool // from is a router or host that says so
}

// receive returns the next reply to this pinger's requests.
func (p *pinger) receive(until time.Time) (reply, error) {
	buf, oob := make([]byte, 2048), make([]byte, 128)
	p.conn.SetReadDeadline(until)
	for {
		n, oobn, _, from, err := p.conn.ReadMsgIP(buf, oob)
		if err != nil {
			return reply{}, err
		}
		r, ok := p.parse(buf[:n])
		if !ok {
			continue
		}
		r.from, _ = netip.AddrFromSlice(from.IP)
		r.from = r.from.Unmap()
		if p.to.Is6() {
			r.ttl = hopLimit(oob[:oobn])
		}
		return r, nil
	}
}

// parse reads a packet: with its header for IPv4, as raw sockets give it, without for IPv6.
func (p *pinger) parse(b []byte) (reply, bool) {
	r := reply{size: len(b)}
	echoReply, unreachable := byte(echoReply6), byte(unreachable6)
	inner := 40 // the header of the packet that an error quotes
	if p.to.Is4() {
		echoReply, unreachable = echoReply4, unreachable4
		if len(b) < 20 || len(b) < int(b[0]&15)*4 {
			return r, false
		}
		r.ttl = int(b[8])
		b = b[int(b[0]&15)*4:]
		r.size, inner = len(b), 20
	}
	if len(b) < 8 {
		return r, false
	}
	if b[0] == unreachable && len(b) >= 8+inner+8 {
		r.unreachable = true
		b = b[8+inner:]
	} else if b[0] != echoReply {
		return r, false
	}
	r.seq = binary.BigEndian.Uint16(b[6:])
	return r, binary.BigEndian.Uint16(b[4:]) == p.id
}

func hopLimit(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
