package lab

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"
)

// PingRequest sends Count echo requests.
type PingRequest struct {
	From, To string
	Count    int           // at least 1
	Timeout  time.Duration // for the first reply; 0: three seconds
	Default  string        // namespace of a pod that is given without one
}

// PingResult says what came back.
type PingResult struct {
	Sent, Received int
	TTLs           []int // of the replies
}

const pingInterval = 200 * time.Millisecond

// ping pings every address of the target; all must answer.
func (s *Supervisor) ping(c *call, r PingRequest) (any, error) {
	if r.Count < 1 {
		return nil, &ExitError{Code: 2, Msg: fmt.Sprintf("-c %d: want at least 1", r.Count)}
	}
	from, err := s.place(r.From, r.Default)
	if err != nil {
		return nil, err
	}
	addrs, err := s.target(r.To, r.Default)
	if err != nil {
		return nil, err
	}
	var all PingResult
	for _, to := range addrs {
		one, err := pingAddr(c, from.ns, to, r)
		if err != nil {
			return nil, fmt.Errorf("ping %v from %s: %w", to, r.From, err)
		}
		all.Sent += one.Sent
		all.Received += one.Received
		all.TTLs = append(all.TTLs, one.TTLs...)
		if one.Received == 0 {
			return all, fmt.Errorf("%v does not answer %s", to, r.From)
		}
	}
	return all, nil
}

// pingAddr pings one address and prints what comes back, as ping(8) does.
func pingAddr(c *call, from *namespaces, to netip.Addr, r PingRequest) (PingResult, error) {
	var p *pinger
	err := from.do(func() (err error) {
		p, err = newPinger(to, uint16(rand.Uint32()))
		return err
	})
	if err != nil {
		return PingResult{}, err
	}
	defer p.conn.Close()
	fmt.Fprintf(c, "PING %v: 56 data bytes\n", to)
	var result PingResult
	for seq := 1; seq <= r.Count && c.ctx.Err() == nil; seq++ {
		if seq > 1 {
			select {
			case <-c.ctx.Done():
			case <-time.After(pingInterval):
			}
		}
		result.Sent++
		ttl, err := p.once(c, uint16(seq), result.patience(r.Timeout))
		if err != nil {
			return result, err
		}
		if ttl > 0 {
			result.Received++
			result.TTLs = append(result.TTLs, ttl)
		}
	}
	fmt.Fprintf(c, "%d packets transmitted, %d received\n", result.Sent, result.Received)
	return result, nil
}

// patience is how long to wait for the next reply: long for the first, and so that
// nothing but silence takes three seconds in all.
func (r PingResult) patience(first time.Duration) time.Duration {
	if r.Received == 0 && r.Sent == 1 {
		return cmp.Or(first, noAnswer)
	}
	return time.Second
}

// once sends one request and waits for its reply, whose TTL it returns; 0 if none comes.
func (p *pinger) once(c *call, seq uint16, patience time.Duration) (int, error) {
	sent := time.Now()
	if err := p.send(seq); err != nil {
		var sys *os.SyscallError
		if errors.As(err, &sys) {
			return 0, sys.Err
		}
		return 0, err
	}
	for {
		r, err := p.receive(sent.Add(patience))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		if r.seq != seq {
			continue
		}
		if r.unreachable {
			fmt.Fprintf(c, "From %v icmp_seq=%d: destination unreachable\n", r.from, seq)
			return 0, nil
		}
		took := float64(time.Since(sent).Microseconds()) / 1000
		fmt.Fprintf(c, "%d bytes from %v: icmp_seq=%d ttl=%d time=%.3f ms\n", r.size, r.from, seq, r.ttl, took)
		return r.ttl, nil
	}
}
