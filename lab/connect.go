package lab

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// noAnswer is how long ping and connect wait before they say that nothing answers.
const noAnswer = 3 * time.Second

// ConnectRequest asks the listener at TO:PORT who it is.
type ConnectRequest struct {
	From, To string // To: pod, node or address, and :PORT
	UDP      bool
	Default  string // namespace of a pod that is given without one
}

// connect tries every address of the target; the first that does not answer fails it.
func (s *Supervisor) connect(c *call, r ConnectRequest) (any, error) {
	from, err := s.place(r.From, r.Default)
	if err != nil {
		return nil, err
	}
	host, port, err := splitTarget(r.To)
	if err != nil {
		return nil, &ExitError{Code: 2, Msg: err.Error()}
	}
	addrs, err := s.target(host, r.Default)
	if err != nil {
		return nil, err
	}
	network := "tcp"
	if r.UDP {
		network = "udp"
	}
	for _, a := range addrs {
		to := netip.AddrPortFrom(a, port)
		reply, err := ask(from.ns, network, to, noAnswer)
		if err != nil {
			return nil, fmt.Errorf("%s %v from %s: %w", network, to, r.From, err)
		}
		fmt.Fprintf(c, "%s %v: %s\n", network, to, reply)
	}
	return nil, nil
}

// splitTarget splits HOST:PORT, where HOST may be an IPv6 address in brackets.
func splitTarget(to string) (string, uint16, error) {
	i := strings.LastIndexByte(to, ':')
	if i <= 0 {
		return "", 0, fmt.Errorf("%q: want POD:PORT or ADDRESS:PORT", to)
	}
	port, err := strconv.ParseUint(to[i+1:], 10, 16)
	if err != nil || port == 0 {
		return "", 0, fmt.Errorf("%q: the port must be 1 to 65535", to)
	}
	host := strings.TrimSuffix(strings.TrimPrefix(to[:i], "["), "]")
	return host, uint16(port), nil
}

// ask sends a line from inside the namespaces and returns the line that comes back.
func ask(from *namespaces, network string, to netip.AddrPort, patience time.Duration) (string, error) {
	until := time.Now().Add(patience)
	conn, err := from.dialer(net.Dialer{Deadline: until})(network, to.String())
	if err != nil {
		return "", dialError(err)
	}
	defer conn.Close()
	conn.SetDeadline(until)
	lines := bufio.NewReader(conn)
	for {
		if _, err := conn.Write([]byte("who\n")); err != nil {
			return "", dialError(err)
		}
		if network == "udp" { // may be lost: ask again
			conn.SetReadDeadline(earlier(until, time.Now().Add(time.Second)))
		}
		line, err := lines.ReadString('\n')
		if err == nil {
			return strings.TrimSpace(line), nil
		}
		if network != "udp" || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(until) {
			return "", dialError(err)
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// dialError drops the addresses that package net adds, and says what a time-out means.
func dialError(err error) error {
	var out net.Error
	if errors.As(err, &out) && out.Timeout() {
		return errors.New("no answer")
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		return sys.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
