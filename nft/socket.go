package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// socket speaks nfnetlink's nf_tables subsystem in one network namespace.
type socket struct {
	fd   int
	port uint32 // by which the kernel's notifications tell who made a change
	seq  uint32
	buf  []byte
}

const (
	sendBuffer    = 128 << 20 // a ceiling, not an allocation: a whole table is one send
	receiveBuffer = 16 << 20
	headerLen     = 16
)

func openSocket(ns int) (*socket, error) {
	s := &socket{fd: -1, buf: make([]byte, 256<<10)}
	err := netlink.Do(ns, func() (err error) {
		s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		s.port, err = portOf(s.fd)
		return err
	})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, errors.New("nftables: the kernel lacks nfnetlink (CONFIG_NETFILTER_NETLINK, module nfnetlink)")
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("nftables: open netlink socket: %w", err)
	}
	for opt, n := range map[int]int{unix.SO_SNDBUFFORCE: sendBuffer, unix.SO_RCVBUFFORCE: receiveBuffer} {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, opt, n) // only large tables need it
	}
	_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1) // to be told which element is refused
	return s, nil
}

// portOf is the port of a netlink socket, as the kernel has chosen it.
func portOf(fd int) (uint32, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	nl, ok := sa.(*unix.SockaddrNetlink)
	if !ok {
		return 0, fmt.Errorf("a netlink socket has an address of type %T", sa)
	}
	return nl.Pid, nil
}

func (s *socket) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// refusal is the kernel's refusal of one message of a transaction.
type refusal struct {
	index int // of the message; -1: of the transaction as a whole
	at    int // where in the message, from its header on; 0: the kernel does not say
	errno unix.Errno
}

func (r *refusal) Error() string { return r.errno.Error() }
func (r *refusal) Unwrap() error { return r.errno }

// errLost: the kernel's answer was lost. The transaction may have happened or not.
var errLost = errors.New("the kernel's answer was lost")

// transact sends the messages as one transaction. An acknowledgement is asked for the
// last one only; refusals name theirs by sequence number.
func (s *socket) transact(msgs []mdl.Message) error {
	first := s.seq + 1
	s.seq += uint32(len(msgs)) + 2
	size := 2 * (headerLen + 4)
	for _, m := range msgs {
		size += headerLen + len(m.Data) + 3
	}
	out := appendMessage(make([]byte, 0, size), batchMessage(unix.NFNL_MSG_BATCH_BEGIN), first, mdl.Request)
	for i, m := range msgs {
		flags := m.Header.Flags &^ (mdl.Acknowledge | mdl.Echo)
		if i == len(msgs)-1 {
			flags |= mdl.Acknowledge
		}
		out = appendMessage(out, m, first+1+uint32(i), flags)
	}
	out = appendMessage(out, batchMessage(unix.NFNL_MSG_BATCH_END), s.seq, mdl.Request)
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send %d bytes: %w", len(out), err)
	}
	return s.answer(first, len(msgs))
}

func batchMessage(t uint16) mdl.Message {
	return mdl.Message{Header: mdl.Header{Type: mdl.HeaderType(t)}, Data: []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES}}
}

func appendMessage(out []byte, m mdl.Message, seq uint32, flags mdl.HeaderFlags) []byte {
	out = binary.NativeEndian.AppendUint32(out, uint32(headerLen+len(m.Data)))
	out = binary.NativeEndian.AppendUint16(out, uint16(m.Header.Type))
	out = binary.NativeEndian.AppendUint16(out, uint16(flags))
	out = binary.NativeEndian.AppendUint32(out, seq)
	out = binary.NativeEndian.AppendUint32(out, 0)
	return pad(append(out, m.Data...))
}

// answer reads what the kernel says of the transaction whose first message, the begin of
// the batch, has sequence number first. The kernel has done with it when send returns, so
// an answer that is not there will not come.
func (s *socket) answer(first uint32, n int) error {
	var refused error
	for {
		msgs, err := s.receive(unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
			if refused != nil {
				return refused
			}
			return errLost
		}
		if err != nil {
			return err
		}
		for _, m := range msgs {
			index := int(m.seq - first - 1)
			if m.kind != unix.NLMSG_ERROR || len(m.data) < 4 || index < -1 || index >= n {
				continue // left over from an earlier exchange
			}
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.data)))
			if errno != 0 && refused == nil {
				refused = &refusal{index: index, at: refusedAt(m), errno: errno}
			}
			if index == n-1 || index == -1 && refused != nil {
				return refused
			}
		}
	}
}

// refusedAt is where in the message the attribute is that was refused; 0: not said.
func refusedAt(m received) int {
	const told = 4 + headerLen // the error, and the header of the message that it is about
	if m.flags&unix.NLM_F_ACK_TLVS == 0 || m.flags&unix.NLM_F_CAPPED == 0 || len(m.data) < told {
		return 0
	}
	b := attribute(m.data[told:], unix.NLMSGERR_ATTR_OFFS)
	if len(b) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(b))
}

type received struct {
	kind, flags uint16
	seq         uint32
	data        []byte
}

// receive reads one datagram of messages, which are valid until the next call.
func (s *socket) receive(flags int) ([]received, error) {
	n, _, recvFlags, _, err := unix.Recvmsg(s.fd, s.buf, nil, flags)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	if recvFlags&unix.MSG_TRUNC != 0 {
		return nil, fmt.Errorf("receive: a message longer than %d bytes", len(s.buf))
	}
	var out []received
	for b := s.buf[:n]; len(b) >= headerLen; {
		size := int(binary.NativeEndian.Uint32(b))
		if size < headerLen || size > len(b) {
			return nil, fmt.Errorf("receive: a message of %d bytes where %d are left", size, len(b))
		}
		out = append(out, received{
			kind: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
			seq: binary.NativeEndian.Uint32(b[8:]), data: b[headerLen:size],
		})
		b = b[min(len(b), (size+3)&^3):]
	}
	return out, nil
}

var errInterrupted = errors.New("tables kept changing while ours was read")

// get asks for objects and calls f with the attributes of each. With errInterrupted all
// the same all that came was passed on.
func (s *socket) get(kind uint16, family byte, flags mdl.HeaderFlags, attrs []mdl.Attribute, f func([]byte)) error {
	body, err := mdl.MarshalAttributes(attrs)
	if err != nil {
		return err
	}
	s.seq++
	m := mdl.Message{Header: mdl.Header{Type: mdl.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)}}
	m.Data = append([]byte{family, unix.NFNETLINK_V0, 0, 0}, body...)
	out := appendMessage(nil, m, s.seq, mdl.Request|flags)
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return s.dump(flags&mdl.Dump != 0, f)
}

// dump reads the answers to the last request.
func (s *socket) dump(many bool, f func([]byte)) error {
	var failed error
	for {
		msgs, err := s.receive(unix.MSG_DONTWAIT)
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if m.seq != s.seq {
				continue
			}
			if m.flags&unix.NLM_F_DUMP_INTR != 0 {
				failed = errInterrupted
			}
			switch m.kind {
			case unix.NLMSG_DONE:
				return failed
			case unix.NLMSG_ERROR:
				if len(m.data) < 4 {
					return errLost
				}
				return unix.Errno(-int32(binary.NativeEndian.Uint32(m.data)))
			}
			if len(m.data) < 4 {
				return errors.New("an answer without header")
			}
			f(m.data[4:])
			if !many {
				return failed
			}
		}
	}
}
