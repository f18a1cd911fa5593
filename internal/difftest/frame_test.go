package difftest

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"github.com/calicogo/calico/dataplane"
)

// datagram returns p as an IP packet whose last 4 bytes are id. Checksums are right:
// connection tracking looks at them.
func datagram(p *dataplane.Packet, id uint32) []byte {
	body := segment(p, id)
	if p.Family() == dataplane.IPv4 {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, byte(p.Protocol)
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
		binary.BigEndian.PutUint16(h[4:], uint16(id))
		copy(h[12:], p.Src.AsSlice())
		copy(h[16:], p.Dst.AsSlice())
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return append(h, body...)
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, byte(p.Protocol), 64
	if p.Discovery() || p.Type == 134 {
		h[7] = 255
	}
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	copy(h[8:], p.Src.AsSlice())
	copy(h[24:], p.Dst.AsSlice())
	return append(h, body...)
}

// segment returns what follows the IP header.
func segment(p *dataplane.Packet, id uint32) []byte {
	tail := binary.BigEndian.AppendUint32(nil, id)
	ports := func(n int) []byte {
		b := make([]byte, n)
		binary.BigEndian.PutUint16(b, p.SrcPort)
		binary.BigEndian.PutUint16(b[2:], p.DstPort)
		return b
	}
	switch p.Protocol {
	case dataplane.TCP:
		b := ports(20)
		binary.BigEndian.PutUint32(b[4:], id)
		b[12], b[13], b[14] = 5<<4, flagSYN, 0x40
		if p.Conn == dataplane.ConnEstablished {
			binary.BigEndian.PutUint32(b[8:], id)
			b[13] = flagACK
		}
		return sum(p, append(b, tail...), 16)
	case dataplane.UDP, dataplane.UDPLite:
		b := append(ports(8), tail...)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b))) // length; of UDP-Lite: coverage, all
		return sum(p, b, 6)
	case dataplane.SCTP:
		if p.Conn == dataplane.ConnEstablished {
			return dataChunk(ports(12), id)
		}
		return initChunk(ports(12), id)
	case p.Family().ICMP():
		b := append([]byte{p.Type, p.Code, 0, 0, byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}, tail...)
		binary.BigEndian.PutUint16(b[4:], uint16(id)) // the identifier of a query
		if p.Family() == dataplane.IPv4 {
			binary.BigEndian.PutUint16(b[2:], checksum(b))
			return b
		}
		return sum(p, b, 2)
	}
	return append(make([]byte, 24), tail...)
}

// initChunk is the packet that opens an SCTP association (RFC 9260, 3.3.2); its initial
// TSN is id.
func initChunk(b []byte, id uint32) []byte {
	b = append(b, 1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 255, 255, 0, 1, 0, 1)
	return crc(binary.BigEndian.AppendUint32(b, id))
}

// dataChunk is a packet of an association (RFC 9260, 3.3.1); what it carries is id.
func dataChunk(b []byte, id uint32) []byte {
	binary.BigEndian.PutUint32(b[4:], vtag)
	b = append(b, 0, 3, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)
	return crc(binary.BigEndian.AppendUint32(b, id))
}

// crc fills in the checksum of an SCTP packet.
func crc(b []byte) []byte {
	crc := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(b[8:], crc)
	return b
}

// sum puts the checksum over pseudo header and b at b[at:].
func sum(p *dataplane.Packet, b []byte, at int) []byte {
	pseudo := append(p.Src.AsSlice(), p.Dst.AsSlice()...)
	pseudo = append(pseudo, 0, byte(p.Protocol))
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(b)))
	c := checksum(append(pseudo, b...))
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[at:], c)
	return b
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i]) << 8
		if i+1 < len(b) {
			s += uint32(b[i+1])
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

const flagSYN, flagRST, flagACK = 0x02, 0x04, 0x10 // of TCP

// split returns the protocol of an IP packet, its source, and what follows its header.
func split(b []byte) (proto dataplane.Protocol, src netip.Addr, body []byte) {
	if len(b) >= 20 && b[0]>>4 == 4 {
		src, _ = netip.AddrFromSlice(b[12:16])
		return dataplane.Protocol(b[9]), src, b[20:]
	}
	if len(b) < 40 {
		return 0, src, nil
	}
	src, _ = netip.AddrFromSlice(b[8:24])
	return dataplane.Protocol(b[6]), src, b[40:]
}

// idOf returns the id and the source of a packet that [datagram] made; 0: it did not.
func idOf(b []byte) (id uint32, src netip.Addr) {
	proto, src, body := split(b)
	icmp := proto == dataplane.ICMP4 || proto == dataplane.ICMP6
	if len(body) < 8 || icmp && len(body) > 12 || proto == dataplane.TCP && len(body) == 20 {
		return 0, src // an ICMP error quotes a packet; a TCP segment of ours carries the id
	}
	return binary.BigEndian.Uint32(b[len(b)-4:]), src
}

// replyOf returns how the packet tells the sender of another one, whose id it returns, that this
// one was refused: by "reset" or "icmp". Empty: it tells no such thing.
func replyOf(b []byte) (how string, id uint32) {
	switch proto, _, body := split(b); {
	case proto == dataplane.TCP && len(body) == 20 && body[13]&flagRST != 0:
		if body[13]&flagACK == 0 {
			return "reset", binary.BigEndian.Uint32(body[4:]) // where the packet acknowledged
		}
		return "reset", binary.BigEndian.Uint32(body[8:]) - 5 // after its SYN and 4 bytes
	case len(body) > 12 && (proto == dataplane.ICMP4 && body[0] == 3 && body[1] == 3 || proto == dataplane.ICMP6 && body[0] == 1 && body[1] == 4):
		id, _ := idOf(body[8:])
		return "icmp", id
	}
	return "", 0
}
