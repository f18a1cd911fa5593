package api

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Duration is written as Go writes durations: "90s".
type Duration = metav1.Duration

// Protocol is an IP protocol, by name ("TCP") or by number ("132").
type Protocol string

var protocolNumbers = map[string]uint8{
	"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPV6": 58, "SCTP": 132, "UDPLITE": 136,
}

// Number is the protocol's number (IANA, protocol numbers). It is false for a name that
// Calico does not know.
func (p Protocol) Number() (uint8, bool) {
	if n, err := strconv.ParseUint(string(p), 10, 8); err == nil {
		return uint8(n), n > 0
	}
	n, ok := protocolNumbers[strings.ToUpper(string(p))]
	return n, ok
}

// canonical is p spelled as Calico does: TCP for tcp, ICMPv6 for icmpv6, 7 for 007.
func (p Protocol) canonical() Protocol {
	if n, err := strconv.ParseUint(string(p), 10, 8); err == nil {
		return Protocol(strconv.FormatUint(n, 10))
	}
	for _, n := range []Protocol{"TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite"} {
		if strings.EqualFold(string(p), string(n)) {
			return n
		}
	}
	return p
}

// hasPorts tells whether packets of the protocol carry port numbers that rules match.
func (p Protocol) hasPorts() bool {
	n, _ := p.Number()
	return n == 6 || n == 17 || n == 132 || n == 136
}

// UnmarshalJSON takes a name or a number.
func (p *Protocol) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*p = Protocol(s)
		return nil
	}
	var n uint8
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("protocol %s: want a name such as TCP or a number from 1 to 255", b)
	}
	*p = Protocol(strconv.Itoa(int(n)))
	return nil
}

// MarshalJSON writes a number as a number.
func (p Protocol) MarshalJSON() ([]byte, error) {
	if n, err := strconv.ParseUint(string(p), 10, 8); err == nil {
		return strconv.AppendUint(nil, n, 10), nil // not as it was written: 007 is no JSON
	}
	return json.Marshal(string(p))
}

// Port is a range of port numbers, one number being a range of one, or a named port.
type Port struct {
	Min, Max uint16
	Name     string // if set, Min and Max are 0
}

// ParsePort parses "80", "1000:2000" or a name.
func ParsePort(s string) (Port, error) {
	lo, hi, isRange := strings.Cut(s, ":")
	if !isRange {
		hi = lo
	}
	a, errA := strconv.ParseUint(lo, 10, 16)
	b, errB := strconv.ParseUint(hi, 10, 16)
	switch {
	case errA == nil && errB == nil && a <= b:
		return Port{Min: uint16(a), Max: uint16(b)}, nil
	case errA == nil && errB == nil:
		return Port{}, fmt.Errorf("port range %q ends before it begins", s)
	case isRange || s == "" || strings.Trim(s, "-0123456789") == "":
		return Port{}, fmt.Errorf("port %q: want a number from 0 to 65535, a range such as 1000:2000, or the name of a port", s)
	}
	return Port{Name: s}, nil
}

func (p Port) String() string {
	switch {
	case p.Name != "":
		return p.Name
	case p.Min == p.Max:
		return strconv.Itoa(int(p.Min))
	}
	return fmt.Sprintf("%d:%d", p.Min, p.Max)
}

// UnmarshalJSON takes a number, a range or a name.
func (p *Port) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		var n uint16
		if json.Unmarshal(b, &n) != nil {
			return fmt.Errorf("port %s: want a number from 0 to 65535, a range such as 1000:2000, or the name of a port", b)
		}
		s = string(b)
	}
	var err error
	*p, err = ParsePort(s)
	return err
}

// MarshalJSON writes a single number as a number.
func (p Port) MarshalJSON() ([]byte, error) {
	if p.Name == "" && p.Min == p.Max {
		return []byte(p.String()), nil
	}
	return json.Marshal(p.String())
}

// ASNumber is a BGP autonomous system number (RFC 6793).
type ASNumber uint32

// UnmarshalJSON takes a number, or "a.b" (RFC 5396, asdot).
func (a *ASNumber) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	hi, lo, dotted := strings.Cut(s, ".")
	if !dotted {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return fmt.Errorf("AS number %s: want 0 to 4294967295, or the form 64512.1", b)
		}
		*a = ASNumber(n)
		return nil
	}
	h, errH := strconv.ParseUint(hi, 10, 16)
	l, errL := strconv.ParseUint(lo, 10, 16)
	if errH != nil || errL != nil {
		return fmt.Errorf("AS number %s: both halves must be 0 to 65535", b)
	}
	*a = ASNumber(h<<16 | l)
	return nil
}

func (a ASNumber) String() string { return strconv.FormatUint(uint64(a), 10) }
