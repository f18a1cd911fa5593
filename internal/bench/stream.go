package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// stream sends packets of UDP to a pod, each of a flow of its own, and sees which arrive.
type stream struct {
	from, to   netip.Addr
	send, recv int // sockets, in the sender's namespace and the pod's
	seq        uint64
}

const (
	streamPort = 7000
	interval   = 50 * time.Microsecond // between packets, besides what one costs
	before     = 20                    // packets before the change
	lost       = 30                    // packets in a row that make a loss
)

// newStream opens the sockets. sender may be netlink.Current.
func newStream(sender int, from netip.Addr, pod *netns, to netip.Addr) (*stream, error) {
	s := &stream{from: from, to: to}
	err := netlink.Do(sender, func() (err error) {
		s.send, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, netlink.Do(int(pod.Fd()), func() (err error) {
		if s.recv, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		_ = unix.SetsockoptInt(s.recv, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		return unix.Bind(s.recv, &unix.SockaddrInet4{Port: streamPort})
	})
}

func (s *stream) close() {
	unix.Close(s.send)
	unix.Close(s.recv)
}

// packet is the next one: IP and UDP headers (RFC 791, 768) and its number.
func (s *stream) packet() []byte {
	s.seq++
	b := make([]byte, 36)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel fills in length, id and checksum
	copy(b[12:], s.from.AsSlice())
	copy(b[16:], s.to.AsSlice())
	binary.BigEndian.PutUint16(b[20:], uint16(1024+s.seq%60000))
	binary.BigEndian.PutUint16(b[22:], streamPort)
	binary.BigEndian.PutUint16(b[24:], 16) // length; a checksum of 0 is none
	binary.BigEndian.PutUint64(b[28:], s.seq)
	return b
}

// flight is what is known of the packets of one flip.
type flight struct {
	first  uint64 // number of sent[0]
	sent   []time.Time
	last   uint64 // the last that arrived; 0: none
	passed uint64 // the first that arrived
}

// one sends a packet and takes what has arrived.
func (s *stream) one(f *flight) error {
	p := s.packet()
	f.sent = append(f.sent, time.Now())
	if err := unix.Sendto(s.send, p, 0, &unix.SockaddrInet4{Addr: s.to.As4()}); err != nil {
		return fmt.Errorf("send to %v: %w", s.to, err)
	}
	for {
		var b [64]byte
		n, _, err := unix.Recvfrom(s.recv, b[:], 0)
		if err != nil || n < 8 {
			return nil
		}
		if seq := binary.BigEndian.Uint64(b[:]); seq >= f.first {
			f.last = max(f.last, seq)
			if f.passed == 0 {
				f.passed = seq
			}
		}
	}
}

// flip sends packets, has change called, and returns how long after its call began the
// first packet was sent whose fate is the new one: that it passes, or not.
func (s *stream) flip(pass bool, change func() error) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	f := &flight{first: s.seq + 1}
	for range before {
		if err := s.one(f); err != nil {
			return 0, err
		}
		rest()
	}
	if (f.last == 0) != pass {
		return 0, fmt.Errorf("packets to %v: %d of %d passed before the change to pass=%v", s.to, f.last, before, pass)
	}
	var start time.Time
	done := make(chan error, 1)
	go func() {
		start = time.Now()
		done <- change()
	}()
	for until := time.Now().Add(patience); time.Now().Before(until); rest() {
		if err := s.one(f); err != nil {
			return 0, err
		}
		if pass && f.passed != 0 {
			return s.after(f, f.passed, &start, done)
		}
		if !pass && s.seq > f.last+lost {
			return s.after(f, f.last+1, &start, done)
		}
	}
	return 0, fmt.Errorf("packets to %v: nothing changed within %v after the change to pass=%v", s.to, patience, pass)
}

// after is the time from start to the sending of packet n.
func (s *stream) after(f *flight, n uint64, start *time.Time, done chan error) (time.Duration, error) {
	if err := <-done; err != nil {
		return 0, err
	}
	return f.sent[n-f.first].Sub(*start), nil
}

// rest waits in the kernel: Go's own timers would come late.
func rest() {
	t := unix.NsecToTimespec(int64(interval))
	_ = unix.Nanosleep(&t, nil)
}
