package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// flying is a probe that was sent.
type flying struct {
	flow   *probed
	number int // from 1
	port   uint16
	sent   time.Time
	mono   int64 // the same, as monotonic has it

	// The packets that the witnesses saw: its first ones (UDP's, or a SYN), and answers.
	left, arrived, answerLeft, returned int
	seen                                int64 // when the first arrived, as monotonic has it

	settled bool
	unsent  bool  // the kernel would not send it
	err     error // why it has no answer
}

// monotonic is the time by CLOCK_MONOTONIC, in nanoseconds: what another process can
// compare with.
func monotonic() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail
	return t.Nano()
}

// send sends the probe from the calling thread's network namespace.
func (f *flying) send(udp bool) (*os.File, error) {
	socket, err := f.dial(udp)
	if err == nil && udp {
		_, err = fmt.Fprintf(socket, "calico lab probe %d sent %d\n", f.number, f.mono)
		if err != nil {
			socket.Close()
		}
	}
	f.unsent = err != nil
	var sys *os.PathError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	return socket, err
}

// dial makes the socket and connects it, for TCP without waiting.
func (f *flying) dial(udp bool) (*os.File, error) {
	domain, kind, to := unix.AF_INET, unix.SOCK_STREAM, f.flow.to
	if to.Addr().Is6() {
		domain = unix.AF_INET6
	}
	if udp {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if !udp { // closed by a reset: no port rests in TIME_WAIT
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	any := netip.IPv4Unspecified()
	if domain == unix.AF_INET6 {
		any = netip.IPv6Unspecified()
	}
	err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(any, f.port)))
	if err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "probe"), nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// awaitAnswer waits for a datagram or for the connection; nil: it came.
func awaitAnswer(socket *os.File, udp bool, patience time.Duration) error {
	socket.SetDeadline(time.Now().Add(patience))
	if udp {
		_, err := socket.Read(make([]byte, 512))
		return err
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		if code, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); code != 0 {
			result = unix.Errno(code)
			return true
		}
		_, err := unix.Getpeername(int(fd))
		return err == nil // ENOTCONN until it is
	})
	return errors.Join(err, result)
}

func refused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }
