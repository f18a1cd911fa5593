package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ProbeRequest sends numbered probes at a steady rate. Each is a flow of its own: a source
// port that no probe had for a while, and for TCP a connection.
type ProbeRequest struct {
	Flows   []ProbeFlow
	UDP     bool
	Rate    float64       // probes a second, of each flow; at most MaxProbeRate in all
	For     time.Duration // 0: until the client has enough
	Denied  bool          // what is expected: that none arrives, instead of that none is lost
	Each    bool          // the result lists every probe
	Default string        // namespace of a pod that is given without one
}

// MaxProbeRate is how many probes a second a request may ask for, all flows together.
const MaxProbeRate = 2000

// ProbeFlow says between whom probes pass.
type ProbeFlow struct {
	From string // pod or node
	To   string // pod, node or address, and :PORT
}

// ProbeResult is what became of the probes of one flow. Between two pods a packet counts
// as lost when a capture on one pod's interface has it and that on the other's has not, so
// that an answer that only came late is no loss. Elsewhere a probe without an answer is.
type ProbeResult struct {
	ProbeFlow
	Sent     int
	Answered int // within a second; within three where packets are not watched
	Refused  int // by the target, which has no such port
	Arrived  int // seen on the target's interface, if that is a pod
	Lost     int // LostThere and LostBack, or unanswered where packets are not watched
	// LostThere and LostBack tell on which way, between pods.
	LostThere, LostBack int
	Unsent              int    // the sender's kernel would not send them
	Reason              string // of the last of those
	// LongestGap is the longest time between the sending of two probes, or from the first
	// or to the last, that were answered.
	LongestGap time.Duration
	Probes     []Probe `json:",omitempty"`
}

// Probe is what became of one probe.
type Probe struct {
	Sent     int64 // nanoseconds of CLOCK_MONOTONIC
	Arrived  bool
	Answered bool
	Lost     bool
	Seen     int64 `json:",omitempty"` // when it was seen to have arrived, likewise
}

// probe sends probes until their time is over or the client has enough.
func (s *Supervisor) probe(c *call, r ProbeRequest) (any, error) {
	if err := r.validate(); err != nil {
		return nil, &ExitError{Code: 2, Msg: err.Error()}
	}
	p, err := s.newProber(r)
	if err != nil {
		return nil, err
	}
	p.run(c.ctx)
	results, missed := p.results()
	for _, f := range results {
		fmt.Fprintln(c, f)
	}
	if missed > 0 {
		return results, fmt.Errorf("the captures missed %d packets, so that nothing can be said of loss: probe at a lower --rate", missed)
	}
	return results, r.judge(results)
}

func (r ProbeRequest) validate() error {
	switch {
	case len(r.Flows) == 0:
		return errors.New("a probe needs a pod or node to start at and a target")
	case !(r.Rate > 0) || r.Rate*float64(len(r.Flows)) > MaxProbeRate:
		return fmt.Errorf("--rate %v: want more than 0, and at most %d probes a second for all flows together", r.Rate, MaxProbeRate)
	case r.For < 0:
		return fmt.Errorf("--for %v: want no negative time", r.For)
	}
	return nil
}

// judge says whether what was expected came true.
func (r ProbeRequest) judge(results []ProbeResult) error {
	var sent, unsent, arrived, lost, refused int
	for _, f := range results {
		sent += f.Sent
		arrived += max(f.Arrived, f.Answered+f.Refused)
		unsent += f.Unsent
		lost += f.Lost + f.Unsent
		refused += f.Refused
	}
	switch {
	case sent == 0 && (r.Denied || lost == 0):
		return errors.New("no probe was sent")
	case arrived > 0 && r.Denied:
		return fmt.Errorf("%d of %d probes arrived, and none should have", arrived, sent)
	case r.Denied:
		return nil
	case lost > 0:
		return fmt.Errorf("%d of %d probes were lost", lost, sent+unsent)
	case refused > 0:
		return fmt.Errorf("%d of %d probes were refused: nothing listens there", refused, sent)
	}
	return nil
}

// String is a line for people.
func (f ProbeResult) String() string {
	text := fmt.Sprintf("%s > %s: %d sent, %d answered", f.From, f.To, f.Sent, f.Answered)
	for _, n := range []struct {
		count int
		what  string
	}{
		{f.Refused, "refused"},
		{f.Lost - f.LostThere - f.LostBack, "lost"},
		{f.LostThere, "lost on the way there"},
		{f.LostBack, "lost on the way back"},
		{f.Unsent, "not sent (" + f.Reason + ")"},
	} {
		if n.count > 0 {
			text += fmt.Sprintf(", %d %s", n.count, n.what)
		}
	}
	if f.Answered > 0 {
		text += fmt.Sprintf(", longest gap %v", f.LongestGap.Round(time.Millisecond))
	}
	return text
}

// prober sends the probes of one request and follows them.
type prober struct {
	request   ProbeRequest
	ports     func() uint16
	sources   []*probeSource
	flows     []*probed
	witnesses map[*namespaces]*witness

	mu     sync.Mutex
	flying map[uint16]*flying // by source port
}

// probeSource is a place from which flows start.
type probeSource struct {
	ns    *namespaces
	flows []*probed
}

// probed is a flow, and what is known of it.
type probed struct {
	to      netip.AddrPort
	watched bool // both ends are pods, whose interfaces are watched
	result  ProbeResult
	first   time.Time // when the first probe was sent
	good    time.Time // when the last one that was answered was
	last    time.Time
	count   int
	pending []*flying // in the order of sending
}

// newProber finds who is meant, and watches the interfaces of the pods among them.
func (s *Supervisor) newProber(r ProbeRequest) (*prober, error) {
	p := &prober{request: r, ports: s.probePort, flying: map[uint16]*flying{}, witnesses: map[*namespaces]*witness{}}
	for _, f := range r.Flows {
		if err := p.addFlow(s, f); err != nil {
			p.stopWatching()
			return nil, err
		}
	}
	return p, nil
}

// addFlow adds a flow, one for each address of its target.
func (p *prober) addFlow(s *Supervisor, f ProbeFlow) error {
	from, err := s.place(f.From, p.request.Default)
	if err != nil {
		return err
	}
	host, port, err := splitTarget(f.To)
	if err != nil {
		return &ExitError{Code: 2, Msg: err.Error()}
	}
	addrs, err := s.target(host, p.request.Default)
	if err != nil {
		return err
	}
	left, err := p.watch(from)
	if err != nil {
		return err
	}
	arrives := false
	if to, err := s.place(host, p.request.Default); err == nil { // else it is an address
		if arrives, err = p.watch(to); err != nil {
			return err
		}
	}
	source := p.source(from.ns)
	for _, a := range addrs {
		flow := &probed{to: netip.AddrPortFrom(a, port), watched: left && arrives}
		flow.result.ProbeFlow = f
		if len(addrs) > 1 {
			flow.result.To = fmt.Sprintf("%s (%v)", f.To, a)
		}
		source.flows = append(source.flows, flow)
		p.flows = append(p.flows, flow)
	}
	return nil
}

// watch watches the place's interface if it is a pod, which it returns.
func (p *prober) watch(at place) (pod bool, err error) {
	if at.ns == at.node.ns {
		return false, nil
	}
	if p.witnesses[at.ns] == nil {
		w, err := watch(at.ns, p.saw)
		if err != nil {
			return false, err
		}
		p.witnesses[at.ns] = w
	}
	return true, nil
}

func (p *prober) source(ns *namespaces) *probeSource {
	for _, s := range p.sources {
		if s.ns == ns {
			return s
		}
	}
	s := &probeSource{ns: ns}
	p.sources = append(p.sources, s)
	return s
}

// probePort gives source ports in turn: one comes again when the kernels on the way have
// forgotten its last flow.
func (s *Supervisor) probePort() uint16 {
	const lowest, count = 1024, 65536 - 1024
	return uint16(lowest + s.probes.Add(1)%count)
}

// run sends until ctx ends or the time is over, and then waits for what is on its way.
func (p *prober) run(ctx context.Context) {
	if p.request.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.request.For)
		defer cancel()
	}
	var senders, waiters sync.WaitGroup
	for _, source := range p.sources {
		senders.Go(func() {
			err := source.ns.do(func() error {
				p.send(ctx, source, &waiters)
				return nil
			})
			if err != nil { // the pod is being removed
				p.refuse(source, err)
			}
		})
	}
	senders.Wait()
	waiters.Wait()
}

// refuse notes that nothing could be sent.
func (p *prober) refuse(source *probeSource, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range source.flows {
		f.result.Reason = err.Error()
		f.result.Unsent++
	}
}

// send sends the probes of one source, in a thread that is there.
func (p *prober) send(ctx context.Context, source *probeSource, waiters *sync.WaitGroup) {
	interval := time.Duration(float64(time.Second) / p.request.Rate / float64(len(source.flows)))
	tick := time.NewTimer(0)
	defer tick.Stop()
	for next, i := time.Now(), 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.one(source.flows[i%len(source.flows)], waiters)
		// A sender that could not keep up goes on at its rate, without a burst.
		next = latest(next.Add(interval), time.Now().Add(-interval))
		tick.Reset(time.Until(next))
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// one sends one probe.
func (p *prober) one(f *probed, waiters *sync.WaitGroup) {
	probe := p.enter(f)
	socket, err := probe.send(p.request.UDP)
	for tries := 0; errors.Is(err, unix.EADDRINUSE) && tries < 100; tries++ {
		p.renumber(probe) // a node's tunnel or agent has that port
		socket, err = probe.send(p.request.UDP)
	}
	if err != nil {
		p.settle(probe, err)
		return
	}
	waiters.Go(func() {
		defer socket.Close()
		p.settle(probe, awaitAnswer(socket, p.request.UDP, f.patience()))
	})
}

// patience is how long an answer may take: short where the packets tell whether it was lost
// or is late, and before TCP sends its SYN again.
func (f *probed) patience() time.Duration {
	if f.watched {
		return time.Second
	}
	return noAnswer
}

// enter enters a probe in the books, with a free source port.
func (p *prober) enter(f *probed) *flying {
	p.mu.Lock()
	defer p.mu.Unlock()
	probe := &flying{flow: f, sent: time.Now(), mono: monotonic()}
	p.number(probe)
	f.pending = append(f.pending, probe)
	f.last = probe.sent
	if f.first.IsZero() {
		f.first, f.good = probe.sent, probe.sent
	}
	f.count++
	probe.number = f.count
	p.fold(f, probe.sent.Add(-2*noAnswer))
	return probe
}

// number gives the probe a source port that none in flight has. The caller holds mu.
func (p *prober) number(probe *flying) {
	probe.port = p.ports()
	for p.flying[probe.port] != nil {
		probe.port = p.ports()
	}
	p.flying[probe.port] = probe
}

// renumber gives a probe that was not sent another source port.
func (p *prober) renumber(probe *flying) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flying, probe.port)
	p.number(probe)
}

// settle notes how a probe ended for its sender: nil if it was answered.
func (p *prober) settle(probe *flying, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	probe.settled, probe.err = true, err
}

// saw is told by the witnesses that a packet of a probe passed.
func (p *prober) saw(pkt probePacket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if probe := p.flying[pkt.from.Port()]; probe != nil && pkt.opens && pkt.to == probe.flow.to {
		if pkt.leaving {
			probe.left++
		} else {
			probe.arrived++
			if probe.arrived == 1 {
				probe.seen = monotonic()
			}
		}
	}
	if probe := p.flying[pkt.to.Port()]; probe != nil && pkt.from == probe.flow.to {
		if pkt.leaving {
			probe.answerLeft++
		} else {
			probe.returned++
		}
	}
}

// fold adds the probes that were sent before a time, and are settled, to the result. The
// caller holds mu.
func (p *prober) fold(f *probed, before time.Time) {
	for len(f.pending) > 0 && f.pending[0].settled && f.pending[0].sent.Before(before) {
		probe := f.pending[0]
		f.pending = f.pending[1:]
		delete(p.flying, probe.port)
		f.add(probe, p.request.Each)
	}
}

// results ends the watching and returns what became of every flow, and how many packets
// the captures missed.
func (p *prober) results() ([]ProbeResult, int) {
	missed := p.stopWatching()
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []ProbeResult
	for _, f := range p.flows {
		p.fold(f, f.last.Add(time.Nanosecond))
		f.gap(f.last)
		all = append(all, f.result)
	}
	return all, missed
}

func (p *prober) stopWatching() (missed int) {
	for _, w := range p.witnesses {
		missed += w.close()
	}
	p.witnesses = nil
	return missed
}

// add adds one probe to the result.
func (f *probed) add(probe *flying, each bool) {
	r := &f.result
	one := Probe{Sent: probe.mono, Answered: probe.err == nil, Arrived: probe.arrived > 0, Seen: probe.seen}
	switch {
	case probe.unsent:
		r.Unsent++
		r.Reason = probe.err.Error()
		return
	case f.watched && probe.left > probe.arrived:
		r.LostThere++
		one.Lost = true
	case f.watched && probe.answerLeft > probe.returned:
		r.LostBack++
		one.Lost = true
	case !f.watched && probe.err != nil && !refused(probe.err):
		one.Lost = true
	}
	r.Sent++
	if one.Lost {
		r.Lost++
	}
	if one.Arrived {
		r.Arrived++
	}
	if refused(probe.err) {
		r.Refused++
	}
	if one.Answered {
		r.Answered++
		f.gap(probe.sent)
		f.good = probe.sent
	}
	if each {
		r.Probes = append(r.Probes, one)
	}
}

// gap takes down the time that has passed since the last answered probe.
func (f *probed) gap(until time.Time) {
	f.result.LongestGap = max(f.result.LongestGap, until.Sub(f.good))
}

// ParseProbeFlows reads FROM TO:PORT pairs.
func ParseProbeFlows(args []string) ([]ProbeFlow, error) {
	if len(args) == 0 || len(args)%2 != 0 {
		return nil, fmt.Errorf("%q: want pairs of FROM and TO:PORT", strings.Join(args, " "))
	}
	var flows []ProbeFlow
	for i := 0; i < len(args); i += 2 {
		flows = append(flows, ProbeFlow{From: args[i], To: args[i+1]})
	}
	return flows, nil
}
