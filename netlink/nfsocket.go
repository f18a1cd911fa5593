package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// nfSocket speaks nfnetlink in one network namespace. What it receives is read where it
// lies, for dumps may be of hundreds of thousands of objects.
type nfSocket struct {
	fd  int
	seq uint32
	buf []byte
}

const (
	nfHeader  = unix.SizeofNlMsghdr + 4 // nlmsghdr and nfgenmsg
	nfReceive = 64 << 10                // more than the kernel's datagrams of a dump
	nfBuffer  = 4 << 20
)

func openNF(ns int) (*nfSocket, error) {
	s := &nfSocket{fd: -1, buf: make([]byte, nfReceive)}
	err := Do(ns, func() (err error) {
		s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		return unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
	if err != nil {
		s.close()
		return nil, err
	}
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, nfBuffer) // batches that are refused whole fit the default nearly always
	_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return s, nil
}

func (s *nfSocket) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// append adds a message to a batch.
func (s *nfSocket) append(b []byte, kind uint16, family uint8, flags uint16, attrs []byte) []byte {
	s.seq++
	b = binary.NativeEndian.AppendUint32(b, uint32(nfHeader+len(attrs)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, s.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return pad4(append(append(b, family, unix.NFNETLINK_V0, 0, 0), attrs...))
}

func (s *nfSocket) send(kind uint16, family uint8, flags uint16, attrs []byte) error {
	return s.write(s.append(nil, kind, family, flags, attrs))
}

func (s *nfSocket) write(b []byte) error {
	for {
		err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// nfMessage is a message of the kernel's; its data is valid until more is received.
type nfMessage struct {
	kind, flags uint16
	seq         uint32
	data        []byte // after nlmsghdr
}

// receive reads a datagram and calls f with its messages until f is done. The kernel has
// answered when a request has been sent, so that it never waits.
func (s *nfSocket) receive(f func(nfMessage) (done bool, err error)) (done bool, err error) {
	n, _, flags, _, err := unix.Recvmsg(s.fd, s.buf, nil, unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("receive: %w", err)
	}
	if flags&unix.MSG_TRUNC != 0 {
		return false, fmt.Errorf("receive: a message longer than %d bytes", len(s.buf))
	}
	for b := s.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false, fmt.Errorf("receive: a message of %d bytes where %d are left", size, len(b))
		}
		m := nfMessage{
			kind: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
			seq: binary.NativeEndian.Uint32(b[8:]), data: b[unix.SizeofNlMsghdr:size],
		}
		if done, err := f(m); done || err != nil {
			return done, err
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false, nil
}

// errInterrupted: what was listed changed so that the list may lack some of it.
var errInterrupted = errors.New("the list was interrupted by a change")

// answers calls f with the attributes of each answer to the last request, many or one. After an error of f's there
// may be more of them.
func (s *nfSocket) answers(many bool, f func(family uint8, attrs []byte) error) error {
	var interrupted error
	for {
		done, err := s.receive(func(m nfMessage) (bool, error) {
			if m.seq != s.seq {
				return false, nil // left over from an earlier exchange
			}
			if m.flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = errInterrupted
			}
			switch {
			case m.kind == unix.NLMSG_DONE:
				return true, nil
			case m.kind == unix.NLMSG_ERROR:
				return true, errnoOf(m.data)
			case len(m.data) < 4:
				return true, errors.New("an answer without header")
			}
			return !many, f(m.data[0], m.data[4:])
		})
		if done || err != nil {
			return errors.Join(err, interrupted)
		}
	}
}

// acknowledged reads what the kernel says of a batch whose first message has that sequence number
// and whose last one, the newest, asked for an answer. refused says what to make of a refusal;
// the first error is returned.
func (s *nfSocket) acknowledged(first uint32, refused func(i int, errno unix.Errno) error) error {
	var failed error
	for {
		done, err := s.receive(func(m nfMessage) (bool, error) {
			i := int(m.seq - first)
			if m.kind != unix.NLMSG_ERROR || i < 0 || i > int(s.seq-first) {
				return false, nil
			}
			var errno unix.Errno
			if err := errnoOf(m.data); err != nil && !errors.As(err, &errno) {
				return false, err
			}
			if errno != 0 {
				if err := refused(i, errno); err != nil && failed == nil {
					failed = err
				}
			}
			return m.seq == s.seq, nil
		})
		if err != nil {
			return err
		}
		if done {
			return failed
		}
	}
}

// errnoOf is the error of a message of type NLMSG_ERROR; nil: it acknowledges.
func errnoOf(data []byte) error {
	if len(data) < 4 {
		return errors.New("an answer without error code")
	}
	if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(data))); errno != 0 {
		return errno
	}
	return nil
}

// nlaTypeMask is NLA_TYPE_MASK of linux/netlink.h.
const nlaTypeMask = 0x3fff

// eachAttr calls f with each attribute; what is cut short is left out.
func eachAttr(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&nlaTypeMask, b[unix.SizeofNlAttr:size])
		b = b[min(len(b), (size+3)&^3):]
	}
}

func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return pad4(append(b, value...))
}

func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
