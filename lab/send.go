package lab

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SendRequest sends single packets, each the first of a flow, from every From to every
// address of every To.
type SendRequest struct {
	From, To   []string // pods; From may be nodes, too
	Parcels    []Parcel
	Family     int    // 4 or 6; 0: both
	SourcePort uint16 // 0: any
	Expect     Fate   // of all; "": whatever
	Default    string // namespace of pods that are given without one
}

// Fate is what became of a packet.
type Fate string

const (
	Arrived  Fate = "arrived"  // at the interface of the pod
	Rejected Fate = "rejected" // by somebody on the way, who said so
	Dropped  Fate = "dropped"  // neither
)

// How long a packet may be on its way: one that is waited for, and one that nobody expects
// to arrive, after it has left its pod.
const (
	sendPatience = 3 * time.Second
	sendSettled  = 250 * time.Millisecond
)

// send sends the packets and says what became of each. No port has to be open for that:
// the interfaces of the pods are watched.
func (s *Supervisor) send(c *call, r SendRequest) (any, error) {
	if len(r.From) == 0 || len(r.To) == 0 || len(r.Parcels) == 0 {
		return nil, &ExitError{Code: 2, Msg: "send needs somebody who sends, pods to send to, and packets"}
	}
	m := &mail{request: r, letters: map[tag]*letter{}, changed: make(chan struct{}, 1)}
	defer m.stopWatching()
	if err := m.address(s); err != nil {
		return nil, err
	}
	if err := m.post(); err != nil {
		return nil, err
	}
	m.wait(c.ctx)
	m.stopWatching() // tells the rest of what has passed so far
	return nil, m.judge(c)
}

// mail is the packets of one request.
type mail struct {
	request   SendRequest
	letters   map[tag]*letter
	order     []*letter
	witnesses map[*namespaces]*witness

	mu      sync.Mutex // guards what witnesses change
	changed chan struct{}
}

// letter is one packet on its way.
type letter struct {
	from         place
	name         string // of the target, for people
	to           netip.Addr
	parcel       Parcel
	tag          tag
	source       uint16
	sender       netip.Addr
	left         time.Time // the sender's interface; zero if it has not
	arrived      bool
	rejectedWith string
}

// address makes the letters and watches the pods' interfaces.
func (m *mail) address(s *Supervisor) error {
	m.witnesses = map[*namespaces]*witness{}
	for _, from := range m.request.From {
		at, err := s.place(from, m.request.Default)
		if err != nil {
			return err
		}
		if at.ns != at.node.ns {
			if err := m.watch(at.ns, m.sender(at.ns)); err != nil {
				return err
			}
		}
		for _, to := range m.request.To {
			if err := m.addressOne(s, at, to); err != nil {
				return err
			}
		}
	}
	if len(m.order) == 0 {
		return errors.New("there is nothing to send: the pods have no address of that family")
	}
	return nil
}

func (m *mail) addressOne(s *Supervisor, from place, to string) error {
	p, err := s.podNamed(to, m.request.Default)
	if err != nil {
		return err
	}
	if err := m.watch(p.ns, m.sender(p.ns)); err != nil {
		return err
	}
	for _, a := range p.addrs {
		if m.request.Family == 4 && a.Is6() || m.request.Family == 6 && a.Is4() {
			continue
		}
		for _, parcel := range m.request.Parcels {
			if parcel, ok := parcel.of(a.Is6()); ok {
				m.add(&letter{from: from, name: to, to: a, parcel: parcel, source: m.sourcePort()})
			}
		}
	}
	return nil
}

// sourcePort is that of the request, or one above those that the kernel gives out.
func (m *mail) sourcePort() uint16 {
	return cmp.Or(m.request.SourcePort, uint16(61000+rand.IntN(4000)))
}

func (m *mail) add(l *letter) {
	for binary.BigEndian.PutUint32(l.tag[:], rand.Uint32()); m.letters[l.tag] != nil; {
		binary.BigEndian.PutUint32(l.tag[:], rand.Uint32())
	}
	m.letters[l.tag] = l
	m.order = append(m.order, l)
}

func (m *mail) watch(ns *namespaces, saw func([]byte, bool)) error {
	if m.witnesses[ns] != nil {
		return nil
	}
	w, err := watchFrames(ns, saw)
	if err != nil {
		return err
	}
	m.witnesses[ns] = w
	return nil
}

func (m *mail) stopWatching() {
	for _, w := range m.witnesses {
		w.close()
	}
	m.witnesses = nil
}

// post sends all letters.
func (m *mail) post() error {
	for _, l := range m.order {
		if err := l.from.ns.do(func() error { return m.postOne(l) }); err != nil {
			return fmt.Errorf("send %v from %s to %v: %w", l.parcel, l.from.name, l.to, err)
		}
		if l.from.ns == l.from.node.ns { // nobody watches nodes
			m.mu.Lock()
			l.left = time.Now()
			m.mu.Unlock()
		}
	}
	return nil
}

// postOne sends a letter, from inside its namespace.
func (m *mail) postOne(l *letter) error {
	sender, err := sourceFor(l.to)
	if err != nil {
		return err
	}
	m.mu.Lock()
	l.sender = sender
	m.mu.Unlock()
	domain := unix.AF_INET
	if l.to.Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, l.parcel.datagram(sender, l.to, l.source, l.tag), 0, sockaddr(netip.AddrPortFrom(l.to, 0)))
}

// sourceFor is the address that the kernel gives to what is sent there.
func sourceFor(to netip.Addr) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err != nil {
		return netip.Addr{}, dialError(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// sender is told what passes the interface of a pod.
func (m *mail) sender(ns *namespaces) func(frame []byte, leaving bool) {
	return func(frame []byte, leaving bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		l, quoted := m.find(frame)
		if l == nil {
			return
		}
		switch {
		case quoted != "" && !leaving && ns == l.from.ns && !l.arrived:
			l.rejectedWith = quoted
		case quoted != "":
			return
		case leaving && ns == l.from.ns:
			l.left = time.Now()
		case !leaving:
			l.arrived = true
		}
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
}

// find finds the letter that a frame is, or that it rejects, which quoted then says how. The
// caller holds mu.
func (m *mail) find(frame []byte) (l *letter, quoted string) {
	h, ok := parseIP(frame)
	if !ok || len(h.body) < 8 {
		return nil, ""
	}
	if len(h.body) >= 4 && len(frame) < witnessFrame { // the tag is the end, padding aside
		for t, l := range m.letters {
			if l.parcel.Protocol == h.protocol && l.to == h.to && l.sender == h.from && bytes.HasSuffix(h.body, t[:]) {
				return l, ""
			}
		}
	}
	for t, l := range m.letters {
		if h.to != l.sender {
			continue
		}
		if how := h.rejects(l, t); how != "" {
			return l, how
		}
	}
	return nil, ""
}

// rejects says how the packet refuses a letter; "": it does not.
func (h ipPacket) rejects(l *letter, t tag) string {
	const rst = 4
	switch h.protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		unreachable := h.protocol == unix.IPPROTO_ICMP && h.body[0] == unreachable4 || h.protocol == unix.IPPROTO_ICMPV6 && h.body[0] == unreachable6
		if unreachable && bytes.Contains(h.body[8:], t[:]) {
			return fmt.Sprintf("ICMP type %d code %d", h.body[0], h.body[1])
		}
	case unix.IPPROTO_TCP:
		same := h.from == l.to && l.parcel.Protocol == unix.IPPROTO_TCP && len(h.body) >= 20 &&
			binary.BigEndian.Uint16(h.body) == l.parcel.Port && binary.BigEndian.Uint16(h.body[2:]) == l.source
		if same && h.body[13]&rst != 0 {
			return "TCP reset"
		}
	}
	return ""
}

// wait waits until it is known what became of every letter.
func (m *mail) wait(ctx context.Context) {
	began := time.Now()
	for {
		left := m.undecided(began)
		if left <= 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-m.changed:
		case <-time.After(left):
		}
	}
}

// undecided is how long it makes sense to wait on.
func (m *mail) undecided(began time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var last time.Time
	open := false
	for _, l := range m.order {
		if l.arrived || l.rejectedWith != "" {
			continue
		}
		open = true
		if l.left.IsZero() {
			return time.Until(began.Add(sendPatience))
		}
		if l.left.After(last) {
			last = l.left
		}
	}
	switch {
	case !open:
		return 0
	case m.request.Expect == Dropped || m.request.Expect == "":
		return time.Until(last.Add(sendSettled))
	}
	return time.Until(began.Add(sendPatience))
}

// judge prints what became of each letter and says whether that was expected.
func (m *mail) judge(c *call) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	wrong := 0
	for _, l := range m.order {
		fate, how := l.fate()
		fmt.Fprintf(c, "%s > %s (%v) %v: %s%s\n", l.from.name, l.name, l.to, l.parcel, fate, how)
		if m.request.Expect != "" && fate != m.request.Expect || l.left.IsZero() && !l.arrived {
			wrong++
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d packets should have %s, and did not", wrong, len(m.order), shouldHave[m.request.Expect])
	}
	return nil
}

func (l *letter) fate() (Fate, string) {
	switch {
	case l.arrived:
		return Arrived, ""
	case l.rejectedWith != "":
		return Rejected, " (" + l.rejectedWith + ")"
	case l.left.IsZero():
		return Dropped, " (by the sender's own kernel)"
	}
	return Dropped, ""
}

// shouldHave says what was expected.
var shouldHave = map[Fate]string{
	Arrived: "arrived", Rejected: "been rejected", Dropped: "been dropped", "": "left their pod",
}

// Fates are all of them.
var Fates = []Fate{Arrived, Rejected, Dropped}

// Validate says what is wrong with r.
func (r SendRequest) Validate() error {
	if r.Expect != "" && !slices.Contains(Fates, r.Expect) {
		return fmt.Errorf("--expect %q: want arrived, rejected or dropped", r.Expect)
	}
	return nil
}
