package iptables

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// renderer writes lowered rules as iptables-restore reads them.
type renderer struct {
	family      dataplane.Family
	logGroup    uint16
	randomFully bool
	chainName   func(key string) string
	setName     func(name string) (string, error)
}

// rules returns the bodies of rules: what stands after -A and the chain.
func (w *renderer) rules(t table, rules []filter.Rule) ([]string, error) {
	out := make([]string, 0, len(rules))
	for i := range rules {
		s, err := w.rule(t, &rules[i])
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// rule returns a rule's body, which begins with a comment that is a hash of the rest.
func (w *renderer) rule(t table, r *filter.Rule) (string, error) {
	var b []byte
	for i := range r.Match {
		var err error
		if b, err = w.match(b, &r.Match[i]); err != nil {
			return "", err
		}
	}
	b, err := w.target(b, t, r)
	if err != nil {
		return "", err
	}
	return commented(string(b)), nil
}

// commented puts the hash of a body before it.
func commented(body string) string {
	return `-m comment --comment "` + commentPrefix + hash(body)[:16] + `"` + body
}

func (w *renderer) match(b []byte, m *filter.Match) ([]byte, error) {
	switch v := m.Value.(type) {
	case filter.Iface:
		return w.device(b, m, v)
	case filter.Prefix:
		flag, err := side(m.Field, filter.SrcAddr, filter.DstAddr, "-s", "-d")
		return fmt.Appendf(not(b, m), " %s %s", flag, v.Prefix), err
	case filter.Number:
		return fmt.Appendf(not(b, m), " -p %d", v), nil
	case filter.Ports:
		flag, err := side(m.Field, filter.SrcPort, filter.DstPort, "--sports", "--dports")
		b = fmt.Appendf(not(append(b, " -m multiport"...), m), " %s %d", flag, v.Min)
		if v.Max != v.Min {
			b = fmt.Appendf(b, ":%d", v.Max)
		}
		return b, err
	case filter.Type:
		return w.icmp(b, m, v)
	case filter.Bits:
		if m.Field == filter.CtMark {
			b = append(b, " -m connmark"...)
		} else {
			b = append(b, " -m mark"...)
		}
		return fmt.Appendf(not(b, m), " --mark %#x/%#x", v.Value, v.Mask), nil
	case filter.Conns:
		return fmt.Appendf(not(append(b, " -m conntrack"...), m), " --ctstate %s", states(v)), nil
	case multiport:
		flag, err := side(m.Field, filter.SrcPort, filter.DstPort, "--sports", "--dports")
		return fmt.Appendf(not(append(b, " -m multiport"...), m), " %s %s", flag, v.list), err
	case filter.SetRef:
		name, err := w.setName(v.Name)
		if err != nil {
			return nil, err
		}
		flag := setSide(m.Field)
		if flag == "" {
			return nil, fmt.Errorf("no rendering of field %d in a set", m.Field)
		}
		return fmt.Appendf(not(append(b, " -m set"...), m), " --match-set %s %s", name, flag), nil
	case nil:
		if m.Field == filter.SrcLocal {
			return append(not(append(b, " -m addrtype"...), m), " --src-type LOCAL"...), nil
		}
	}
	return nil, fmt.Errorf("no rendering of a match of field %d with %T", m.Field, m.Value)
}

func not(b []byte, m *filter.Match) []byte {
	if m.Not {
		return append(b, " !"...)
	}
	return b
}

// side returns the option for the one field or the other.
func side(f, src, dst filter.Field, ifSrc, ifDst string) (string, error) {
	switch f {
	case src:
		return ifSrc, nil
	case dst:
		return ifDst, nil
	}
	return "", fmt.Errorf("no rendering of field %d with such a value", f)
}

// setSide says which parts of a packet a set is asked for.
func setSide(f filter.Field) string {
	switch f {
	case filter.SrcAddr:
		return "src"
	case filter.DstAddr:
		return "dst"
	case filter.SrcTriple, filter.InIfaceSrc: // a device at the source's side is the input device
		return "src,src"
	case filter.DstTriple:
		return "dst,dst"
	}
	return ""
}

func (w *renderer) device(b []byte, m *filter.Match, v filter.Iface) ([]byte, error) {
	if err := checkDevice(v.Name); err != nil {
		return nil, err
	}
	flag, err := side(m.Field, filter.InIface, filter.OutIface, "-i", "-o")
	b = fmt.Appendf(not(b, m), " %s %s", flag, v.Name)
	if v.Prefix {
		b = append(b, '+')
	}
	return b, err
}

// icmp renders a type. To iptables, type 255 of IPv4 is any.
func (w *renderer) icmp(b []byte, m *filter.Match, v filter.Type) ([]byte, error) {
	if w.family == dataplane.IPv6 {
		b = append(not(append(b, " -m icmp6"...), m), " --icmpv6-type "...)
	} else {
		if v.Type == 255 {
			return nil, fmt.Errorf("ICMP type 255: iptables takes it for any type; leave the rule out, or set nftablesMode to Auto")
		}
		b = append(not(append(b, " -m icmp"...), m), " --icmp-type "...)
	}
	b = strconv.AppendUint(b, uint64(v.Type), 10)
	if v.HasCode {
		b = strconv.AppendUint(append(b, '/'), uint64(v.Code), 10)
	}
	return b, nil
}

func states(v filter.Conns) string {
	var out []string
	for c, name := range [...]string{
		dataplane.ConnNew: "NEW", dataplane.ConnEstablished: "RELATED,ESTABLISHED",
		dataplane.ConnInvalid: "INVALID", dataplane.ConnUntracked: "UNTRACKED",
	} {
		if v&(1<<c) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
}

// target renders what a rule does.
func (w *renderer) target(b []byte, t table, r *filter.Rule) ([]byte, error) {
	switch {
	case len(r.Actions) > 1 || len(r.Actions) == 1 && r.Verdict != filter.Continue:
		return nil, fmt.Errorf("a rule of iptables has one target")
	case len(r.Actions) == 1:
		return w.action(b, r.Actions[0])
	}
	switch r.Verdict {
	case filter.Continue:
		return b, nil
	case filter.Return:
		return append(b, " -j RETURN"...), nil
	case filter.Accept:
		return append(b, " -j ACCEPT"...), nil
	case filter.Drop:
		return append(b, " -j DROP"...), nil
	case filter.Jump:
		return append(append(b, " -j "...), w.chainName(r.Target)...), nil
	case filter.Goto:
		return append(append(b, " -g "...), w.chainName(r.Target)...), nil
	case filter.Reject, filter.Reset:
		return w.reject(b, t, r.Verdict), nil
	}
	return nil, fmt.Errorf("no rendering of verdict %v", r.Verdict)
}

// reject renders the verdicts that tell the sender, which only the filter table can.
func (w *renderer) reject(b []byte, t table, v filter.Verdict) []byte {
	switch {
	case t != filterTable:
		return append(b, " -j DROP"...)
	case v == filter.Reset:
		return append(b, " -j REJECT --reject-with tcp-reset"...)
	case w.family == dataplane.IPv6:
		return append(b, " -j REJECT --reject-with icmp6-port-unreachable"...)
	}
	return append(b, " -j REJECT --reject-with icmp-port-unreachable"...)
}

func (w *renderer) action(b []byte, a filter.Action) ([]byte, error) {
	switch a := a.(type) {
	case filter.Log:
		return w.log(limit(b, a.Rate), a), nil
	case filter.SetMark:
		return fmt.Appendf(b, " -j MARK --set-xmark %#x/%#x", a.Value, a.Mask), nil
	case filter.SetCtMark:
		return fmt.Appendf(b, " -j CONNMARK --set-xmark %#x/%#x", a.Value, a.Mask), nil
	case filter.Notrack:
		return append(b, " -j CT --notrack"...), nil
	case filter.Masquerade:
		return w.random(append(b, " -j MASQUERADE"...)), nil
	case filter.SNAT:
		return w.random(fmt.Appendf(b, " -j SNAT --to-source %s", a.Addr)), nil
	case filter.DNAT:
		to := a.Addr.String()
		if a.Port != 0 {
			to = netip.AddrPortFrom(a.Addr, a.Port).String()
		}
		return fmt.Appendf(b, " -j DNAT --to-destination %s", to), nil
	}
	return nil, fmt.Errorf("no rendering of action %T", a)
}

func (w *renderer) random(b []byte) []byte {
	if w.randomFully {
		return append(b, " --random-fully"...)
	}
	return b
}

const (
	maxLogPrefix   = 29 // of LOG
	maxNFLogPrefix = 63 // of NFLOG
	logNotice      = 5
)

func (w *renderer) log(b []byte, a filter.Log) []byte {
	if group := cmp.Or(a.Group, w.logGroup); group != 0 {
		b = fmt.Appendf(b, " -j NFLOG --nflog-group %d", group)
		return text(b, "--nflog-prefix", a.Prefix, maxNFLogPrefix)
	}
	b = fmt.Appendf(b, " -j LOG --log-level %d", logNotice)
	return text(b, "--log-prefix", a.Prefix, maxLogPrefix)
}

// text renders an option whose value may be any text, cut to a number of bytes. What would end the line is
// replaced.
func text(b []byte, option, s string, longest int) []byte {
	if s = s[:min(len(s), longest)]; s == "" {
		return b
	}
	b = append(append(append(b, ' '), option...), ` "`...)
	for _, c := range []byte(s) {
		switch {
		case c < ' ' || c == 0x7f:
			c = '?'
		case c == '"' || c == '\\':
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return append(b, '"')
}

const (
	maxPerSecond = 10_000 // packets: what xt_limit counts
	maxBurst     = 10_000
	day          = 86_400 // seconds
)

// limit renders a rate, or the one nearest to it that the kernel takes: at most 10,000 packets a second, and no
// burst that takes more than a day to come again, which may be past what it can count.
func limit(b []byte, r dataplane.Rate) []byte {
	if r.Packets == 0 {
		return b
	}
	unit := map[dataplane.Period]int{dataplane.PerSecond: 1, dataplane.PerMinute: 60, dataplane.PerHour: 3600, dataplane.PerDay: day}[r.Per]
	packets := min(r.Packets, maxPerSecond*unit)
	burst := min(max(r.Burst, 1), maxBurst, max(1, day/unit*packets))
	return fmt.Appendf(b, " -m limit --limit %d/%s --limit-burst %d", packets, r.Per, burst)
}
