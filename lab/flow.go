package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// FlowRequest opens a TCP flow to the listener at TO:PORT, one for each address of the target,
// and holds it: every so often it sends a line, which the listener answers.
type FlowRequest struct {
	From, To string        // To: pod, node or address, and :PORT
	Every    time.Duration // from an answer to the next line, at most five seconds
	For      time.Duration // 0: until the client hangs up
	Expect   FlowEnd       // of all, or ""
	Default  string        // namespace of a pod that is given without one
}

// FlowEnd says how a flow ended.
type FlowEnd string

const (
	FlowAlive  FlowEnd = "alive"  // it did not: time was over
	FlowReset  FlowEnd = "reset"  // by a TCP segment with RST
	FlowClosed FlowEnd = "closed" // by the listener
	FlowSilent FlowEnd = "silent" // a line was not answered for three seconds
)

var flowEnds = []FlowEnd{FlowAlive, FlowReset, FlowClosed, FlowSilent}

// Validate checks what a user may say wrongly.
func (r FlowRequest) Validate() error {
	if r.Every <= 0 || r.Every > listenerPatience/2 {
		return fmt.Errorf("--every %v: want a time up to %v", r.Every, listenerPatience/2)
	}
	if r.For < 0 {
		return fmt.Errorf("--for %v: want a time", r.For)
	}
	if r.Expect != "" && !slices.Contains(flowEnds, r.Expect) {
		return fmt.Errorf("--expect %q: want one of %v", r.Expect, flowEnds)
	}
	return nil
}

// flow prints a line when all flows are open, and one for each as it ends.
func (s *Supervisor) flow(c *call, r FlowRequest) (any, error) {
	if err := r.Validate(); err != nil {
		return nil, &ExitError{Code: 2, Msg: err.Error()}
	}
	flows, err := s.openFlows(r)
	defer func() {
		for _, f := range flows {
			f.conn.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "%s > %s is open\n", r.From, r.To)
	ends := make(chan string)
	unexpected := 0
	for _, f := range flows {
		go func() {
			f.hold(c.ctx, r)
			ends <- fmt.Sprintf("%s > %s (%v): %s after %v, %d lines answered", r.From, r.To, f.to, f.end, f.after.Round(time.Millisecond), f.answered)
		}()
	}
	for range flows {
		fmt.Fprintln(c, <-ends)
	}
	for _, f := range flows {
		if r.Expect != "" && f.end != r.Expect {
			unexpected++
		}
	}
	if unexpected > 0 {
		return nil, fmt.Errorf("%d of %d flows did not end as %s", unexpected, len(flows), r.Expect)
	}
	return nil, nil
}

// heldFlow is one TCP connection.
type heldFlow struct {
	to    netip.Addr
	conn  net.Conn
	lines *bufio.Reader

	end      FlowEnd
	after    time.Duration // from its opening to its end or, if it is silent, to the last answer
	answered int
}

// openFlows opens a flow to every address of the target; it returns those it opened also when
// one cannot be.
func (s *Supervisor) openFlows(r FlowRequest) (flows []*heldFlow, err error) {
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
	for _, a := range addrs {
		to := netip.AddrPortFrom(a, port)
		conn, err := from.ns.dialer(net.Dialer{Timeout: noAnswer})("tcp", to.String())
		if err != nil {
			return flows, fmt.Errorf("tcp %v from %s: %w", to, r.From, dialError(err))
		}
		flows = append(flows, &heldFlow{to: a, conn: conn, lines: bufio.NewReader(conn)})
	}
	return flows, nil
}

// hold sends lines until the flow ends, ctx ends or the time is over, but for a line that is
// not answered yet.
func (f *heldFlow) hold(ctx context.Context, r FlowRequest) {
	opened := time.Now()
	defer func() {
		if f.end != FlowSilent {
			f.after = time.Since(opened)
		}
	}()
	var over <-chan time.Time
	if r.For > 0 {
		over = time.After(r.For)
	}
	for {
		if f.end = f.exchange(); f.end != FlowAlive {
			return
		}
		f.answered++
		f.after = time.Since(opened)
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case <-time.After(r.Every):
		}
	}
}

// exchange sends a line and waits for its answer.
func (f *heldFlow) exchange() FlowEnd {
	f.conn.SetDeadline(time.Now().Add(noAnswer))
	_, err := f.conn.Write([]byte(stay + "\n"))
	if err == nil {
		_, err = f.lines.ReadString('\n')
	}
	switch {
	case err == nil:
		return FlowAlive
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		return FlowSilent
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return FlowReset
	}
	return FlowClosed
}
