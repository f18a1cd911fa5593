package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// nfnetlink is a socket to nftables, without any library between: what a floor uses.
type nfnetlink struct {
	fd  int
	seq uint32
	buf []byte
}

// openNFNetlink opens one in the calling thread's network namespace.
func openNFNetlink() (*nfnetlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 128<<20) // only large ones need it
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	return &nfnetlink{fd: fd, buf: make([]byte, 256<<10)}, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (s *nfnetlink) close() { unix.Close(s.fd) }

// message is one of nfnetlink, without its header.
type message struct {
	kind, flags uint16
	body        []byte
}

const nftSubsystem = unix.NFNL_SUBSYS_NFTABLES << 8

// nftMessage is a message of nftables for IPv4.
func nftMessage(kind, flags uint16, attrs ...[]byte) message {
	m := message{nftSubsystem | kind, flags, []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}}
	for _, a := range attrs {
		m.body = append(m.body, a...)
	}
	return m
}

// attr is a netlink attribute; its values follow each other.
func attr(kind uint16, values ...[]byte) []byte {
	b := make([]byte, 4, 64)
	for _, v := range values {
		b = append(b, v...)
	}
	binary.NativeEndian.PutUint16(b, uint16(len(b)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func nested(kind uint16, values ...[]byte) []byte { return attr(kind|unix.NLA_F_NESTED, values...) }
func text(s string) []byte                        { return append([]byte(s), 0) }
func be32(x int) []byte                           { return binary.BigEndian.AppendUint32(nil, uint32(x)) }

func (s *nfnetlink) append(out []byte, m message) []byte {
	out = binary.NativeEndian.AppendUint32(out, uint32(16+len(m.body)))
	out = binary.NativeEndian.AppendUint16(out, m.kind)
	out = binary.NativeEndian.AppendUint16(out, m.flags|unix.NLM_F_REQUEST)
	out = binary.NativeEndian.AppendUint32(out, s.seq)
	out = binary.NativeEndian.AppendUint32(out, 0)
	s.seq++
	return append(out, m.body...)
}

// commit sends one transaction. The last message is acknowledged.
func (s *nfnetlink) commit(ms ...message) error {
	frame := func(kind uint16) message {
		return message{kind: kind, body: []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES}}
	}
	out := s.append(nil, frame(unix.NFNL_MSG_BATCH_BEGIN))
	for i, m := range ms {
		if i == len(ms)-1 {
			m.flags |= unix.NLM_F_ACK
		}
		out = s.append(out, m)
	}
	out = s.append(out, frame(unix.NFNL_MSG_BATCH_END))
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
	if err != nil {
		return err
	}
	if n < 20 || binary.NativeEndian.Uint16(s.buf[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("nftables answered with %d bytes", n)
	}
	if errno := -int32(binary.NativeEndian.Uint32(s.buf[16:])); errno != 0 {
		return fmt.Errorf("nftables refused message %d: %w", binary.NativeEndian.Uint32(s.buf[28:])-s.seq+uint32(len(ms))+1, unix.Errno(errno))
	}
	return nil
}

// dump asks for all objects of a kind and calls f with the body of each.
func (s *nfnetlink) dump(m message, f func([]byte)) error {
	m.flags |= unix.NLM_F_DUMP
	if err := unix.Sendto(s.fd, s.append(nil, m), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
		if err != nil {
			return err
		}
		for b := s.buf[:n]; len(b) >= 16; {
			size := int(binary.NativeEndian.Uint32(b))
			switch binary.NativeEndian.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				return unix.Errno(-int32(binary.NativeEndian.Uint32(b[16:])))
			}
			f(b[20:size])
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

// read dumps the chains, rules and sets of all tables and returns the sets' names.
func (s *nfnetlink) read() (sets []string, err error) {
	for _, kind := range []uint16{unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE} {
		if err := s.dump(nftMessage(kind, 0), func([]byte) {}); err != nil {
			return nil, err
		}
	}
	return sets, s.dump(nftMessage(unix.NFT_MSG_GETSET, 0), func(b []byte) {
		for len(b) >= 4 {
			size := int(binary.NativeEndian.Uint16(b))
			if binary.NativeEndian.Uint16(b[2:]) == unix.NFTA_SET_NAME {
				sets = append(sets, string(b[4:size-1]))
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	})
}

// readElements asks for the elements of a set.
func readElements(table, set string) message {
	return nftMessage(unix.NFT_MSG_GETSETELEM, 0, attr(unix.NFTA_SET_ELEM_LIST_TABLE, text(table)), attr(unix.NFTA_SET_ELEM_LIST_SET, text(set)))
}

// Messages that make tables.

const floorTable = "floor"

var inFloorTable = attr(unix.NFTA_RULE_TABLE, text(floorTable)) // the same number in all kinds

func newTable() message {
	return nftMessage(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, attr(unix.NFTA_TABLE_NAME, text(floorTable)))
}

func newChain(name string) message {
	return nftMessage(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, inFloorTable, attr(unix.NFTA_CHAIN_NAME, text(name)))
}

// forwardChain is a chain that sees the packets that the machine forwards.
func forwardChain(name string) message {
	hook := nested(unix.NFTA_CHAIN_HOOK, attr(unix.NFTA_HOOK_HOOKNUM, be32(unix.NF_INET_FORWARD)), attr(unix.NFTA_HOOK_PRIORITY, be32(0)))
	return nftMessage(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, inFloorTable,
		attr(unix.NFTA_CHAIN_NAME, text(name)), hook, attr(unix.NFTA_CHAIN_TYPE, text("filter")))
}

func newRule(chain string, exprs ...[]byte) message {
	return nftMessage(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, inFloorTable,
		attr(unix.NFTA_RULE_CHAIN, text(chain)), nested(unix.NFTA_RULE_EXPRESSIONS, exprs...))
}

// emptyChain removes all rules of a chain.
func emptyChain(name string) message {
	return nftMessage(unix.NFT_MSG_DELRULE, 0, inFloorTable, attr(unix.NFTA_RULE_CHAIN, text(name)))
}

func expression(name string, data ...[]byte) []byte {
	return nested(unix.NFTA_LIST_ELEM, attr(unix.NFTA_EXPR_NAME, text(name)), nested(unix.NFTA_EXPR_DATA, data...))
}

// address4 loads the packet's source or destination address into register 1.
func address4(destination bool) []byte {
	at := 12
	if destination {
		at = 16
	}
	return expression("payload", attr(unix.NFTA_PAYLOAD_DREG, be32(unix.NFT_REG_1)), attr(unix.NFTA_PAYLOAD_BASE, be32(unix.NFT_PAYLOAD_NETWORK_HEADER)),
		attr(unix.NFTA_PAYLOAD_OFFSET, be32(at)), attr(unix.NFTA_PAYLOAD_LEN, be32(4)))
}

func equals(a netip.Addr) []byte {
	return expression("cmp", attr(unix.NFTA_CMP_SREG, be32(unix.NFT_REG_1)), attr(unix.NFTA_CMP_OP, be32(unix.NFT_CMP_EQ)),
		nested(unix.NFTA_CMP_DATA, attr(unix.NFTA_DATA_VALUE, a.AsSlice())))
}

// notIn is true for what is not in the set.
func notIn(set string) []byte {
	return expression("lookup", attr(unix.NFTA_LOOKUP_SET, text(set)), attr(unix.NFTA_LOOKUP_SREG, be32(unix.NFT_REG_1)),
		attr(unix.NFTA_LOOKUP_FLAGS, be32(unix.NFT_LOOKUP_F_INV)))
}

func drop() []byte {
	const nfDrop = 0
	return expression("immediate", attr(unix.NFTA_IMMEDIATE_DREG, be32(unix.NFT_REG_VERDICT)),
		nested(unix.NFTA_IMMEDIATE_DATA, nested(unix.NFTA_DATA_VERDICT, attr(unix.NFTA_VERDICT_CODE, be32(nfDrop)))))
}

// newSet is a set of IPv4 addresses.
func newSet(name string, id int) message {
	const ipv4Addr = 7 // nft's number of the type
	return nftMessage(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, inFloorTable, attr(unix.NFTA_SET_NAME, text(name)),
		attr(unix.NFTA_SET_KEY_TYPE, be32(ipv4Addr)), attr(unix.NFTA_SET_KEY_LEN, be32(4)), attr(unix.NFTA_SET_ID, be32(id)))
}

// elements adds addresses to a set, or removes them.
func elements(add bool, set string, addrs ...netip.Addr) message {
	kind, flags := uint16(unix.NFT_MSG_DELSETELEM), uint16(0)
	if add {
		kind, flags = unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE
	}
	var list [][]byte
	for _, a := range addrs {
		list = append(list, nested(unix.NFTA_LIST_ELEM, nested(unix.NFTA_SET_ELEM_KEY, attr(unix.NFTA_DATA_VALUE, a.AsSlice()))))
	}
	return nftMessage(kind, flags, inFloorTable, attr(unix.NFTA_SET_ELEM_LIST_SET, text(set)), nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list...))
}
