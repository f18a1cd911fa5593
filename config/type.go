package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/calicogo/calico/api"
)

// Type is what values a parameter may have, and how they are written.
type Type struct {
	Want  string // completes "must be …"
	zero  any    // what none stands for
	parse func(string) (any, error)
	// yaml turns a value in FelixConfiguration into the text that parse takes.
	yaml func(json.RawMessage) (string, error)
}

// errWant says no more than that a value is not what its type wants.
var errWant = errors.New("not as it must be")

// Value parses the text of a value.
func (t Type) Value(s string) (any, error) {
	v, err := t.parse(s)
	switch {
	case err == errWant:
		return nil, fmt.Errorf("%q: must be %s", s, t.Want)
	case err != nil:
		return nil, fmt.Errorf("%q: %w: must be %s", s, err, t.Want)
	}
	return v, nil
}

var (
	boolean      = Type{"true or false", false, parseBool, yamlBool}
	port         = integer(0, 65535)
	anyInteger   = integer(math.MinInt64, math.MaxInt64)
	seconds      = Type{"a number of seconds, and in FelixConfiguration a duration such as 90s", time.Duration(0), durationIn(time.Second), yamlDuration(time.Second)}
	milliseconds = Type{"a number of milliseconds, and in FelixConfiguration a duration such as 50ms", time.Duration(0), durationIn(time.Millisecond), yamlDuration(time.Millisecond)}
	text         = Type{"any text", "", func(s string) (any, error) { return s, nil }, yamlText}
	logPrefix    = Type{"a text of at most 125 bytes, in one line", "", parseLogPrefix, yamlText}
	path         = Type{"a path", "", parsePath, yamlText}
	expression   = Type{"a regular expression", (*regexp.Regexp)(nil), parseExpression, yamlText}
	keyValues    = Type{"a list of KEY=VALUE pairs, separated by commas", map[string]string(nil), parseKeyValues, yamlText}
	durations    = Type{"a list of NAME=DURATION pairs such as calculationGraph=90s, separated by commas", map[string]time.Duration(nil), parseDurations, yamlDurations}
	timeouts     = Type{"a list of NAME=DURATION pairs such as TCPSynSent=20s or NAME=Auto, separated by commas", map[string]string(nil), parseTimeouts, yamlText}
	ipv4         = Type{"an IPv4 address", netip.Addr{}, parseAddr(netip.Addr.Is4), yamlText}
	ipv6         = Type{"an IPv6 address", netip.Addr{}, parseAddr(netip.Addr.Is6), yamlText}
	cidrs        = Type{"a list of IP addresses and CIDRs, separated by commas", []netip.Prefix(nil), parseList(api.ParseNet), yamlText}
	endpoints    = Type{"a list of URLs such as https://127.0.0.1:2379, separated by commas", []string(nil), parseList(parseEndpoint), yamlText}
	portRange    = Type{"a port from 0 to 65535, or a range such as 1000:2000", PortRange{}, asAny(parseRange), yamlText}
	portRanges   = Type{"a list of ports and ranges such as 30000:32767, separated by commas", []PortRange(nil), parseList(parseRange), yamlText}
	hostPorts    = Type{"a list such as tcp:22,udp:[fd00::/64]:53, separated by commas: protocol, network and port", []HostPort(nil), parseList(parseHostPort), yamlHostPorts}
	dscp         = Type{"a DSCP from 0 to 63, or its name such as EF or AF41", uint8(0), parseDSCP, yamlText}
	tableRange   = Type{"a range of routing tables such as 1-250", TableRange{}, asAny(parseTables(250)), yamlTables}
	tableRanges  = Type{"a list of ranges of routing tables such as 1-250,10000-10999", []TableRange(nil), parseTableRanges, yamlTables}

	interfacePrefixes = Type{"a list of prefixes, 1 to 14 letters, digits, '_' or '-' each, separated by commas", []string(nil), parsePrefixes, yamlText}
	interfaceNames    = Type{"a list of interface names, separated by commas", []string(nil), parseList(matching(ifaceName)), yamlText}
	interfaceList     = Type{"a list of interface names and /regular expressions/, separated by commas", []string(nil), parseList(parseInterface), yamlText}
)

var (
	rateLimit   = regexp.MustCompile(`^[1-9]\d{0,3}/(second|minute|hour|day)$`)
	hostPort    = regexp.MustCompile(`^[^:/]+:\d+$`)
	hostAddr    = regexp.MustCompile(`^[a-zA-Z0-9:._+-]{1,64}$`)
	hostName    = regexp.MustCompile(`^[a-zA-Z0-9_.-]+$`)
	ifaceName   = regexp.MustCompile(`^[a-zA-Z0-9:._+-]{1,15}$`)
	ifacePrefix = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,14}$`) // the kernel takes 15, and something must follow
	dnsLabel    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// PortRange is a range of ports; the zero PortRange is none.
type PortRange struct{ Min, Max uint16 }

// HostPort is a port that failsafe rules keep open.
type HostPort struct {
	Protocol string // tcp or udp
	Net      netip.Prefix
	Port     uint16
}

// TableRange is a range of routing tables, both ends included.
type TableRange struct{ Min, Max int }

func asAny[T any](f func(string) (T, error)) func(string) (any, error) {
	return func(s string) (any, error) { return f(s) }
}

func parseBool(s string) (any, error) {
	switch strings.ToLower(s) {
	case "true", "1", "yes", "y", "t":
		return true, nil
	case "false", "0", "no", "n", "f":
		return false, nil
	}
	return nil, errWant
}

func integer(lo, hi int) Type {
	want := fmt.Sprintf("a whole number from %d to %d", lo, hi)
	switch {
	case lo == math.MinInt64:
		want = "a whole number"
	case hi == math.MaxInt64:
		want = fmt.Sprintf("a whole number, at least %d", lo)
	}
	return Type{want, 0, func(s string) (any, error) {
		n, err := strconv.ParseInt(s, 0, 64)
		if err != nil || n < int64(lo) || n > int64(hi) {
			return nil, errWant
		}
		return int(n), nil
	}, yamlNumber}
}

// oneOf is an enumeration. Case does not matter.
func oneOf(options ...string) Type {
	return Type{"one of " + strings.Join(options, ", "), "", func(s string) (any, error) {
		for _, o := range options {
			if strings.EqualFold(s, o) {
				return o, nil
			}
		}
		return nil, errWant
	}, yamlText}
}

func match(re *regexp.Regexp, want string) Type {
	return Type{want, "", asAny(matching(re)), yamlText}
}

func matching(re *regexp.Regexp) func(string) (string, error) {
	return func(s string) (string, error) {
		if !re.MatchString(s) {
			return "", errWant
		}
		return s, nil
	}
}

func durationIn(unit time.Duration) func(string) (any, error) {
	return func(s string) (any, error) {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(f) || math.Abs(f) > math.MaxInt64/float64(unit)/2 {
			return nil, errWant
		}
		return time.Duration(math.Round(f * float64(unit))), nil
	}
}

// parseLogPrefix leaves room, within the kernel's 127 bytes, for what is put behind it.
func parseLogPrefix(s string) (any, error) {
	if len(s) > 125 || strings.ContainsFunc(s, unicode.IsControl) {
		return nil, errWant
	}
	return s, nil
}

func parsePath(s string) (any, error) {
	if strings.Contains(s, "\x00") {
		return nil, errWant
	}
	return s, nil
}

func parseExpression(s string) (any, error) {
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, err
	}
	return re, nil
}

// items splits a list; empty items are left out.
func items(s string) []string {
	var all []string
	for _, i := range strings.Split(s, ",") {
		if i = strings.TrimSpace(i); i != "" {
			all = append(all, i)
		}
	}
	return all
}

func parseList[T any](one func(string) (T, error)) func(string) (any, error) {
	return func(s string) (any, error) {
		var all []T
		for _, i := range items(s) {
			v, err := one(i)
			if err != nil {
				return nil, errWant
			}
			all = append(all, v)
		}
		return all, nil
	}
}

func parseKeyValues(s string) (any, error) {
	m := map[string]string{}
	for _, i := range items(s) {
		k, v, ok := strings.Cut(i, "=")
		if k = strings.TrimSpace(k); !ok || k == "" {
			return nil, errWant
		}
		m[k] = strings.TrimSpace(v)
	}
	return m, nil
}

func parseDurations(s string) (any, error) {
	pairs, err := parseKeyValues(s)
	if err != nil {
		return nil, err
	}
	m := map[string]time.Duration{}
	for k, v := range pairs.(map[string]string) {
		if m[k], err = time.ParseDuration(v); err != nil {
			return nil, errWant
		}
	}
	return m, nil
}

func parseTimeouts(s string) (any, error) {
	pairs, err := parseKeyValues(s)
	if err != nil {
		return nil, err
	}
	for _, v := range pairs.(map[string]string) {
		if _, err := time.ParseDuration(v); err != nil && v != "Auto" {
			return nil, errWant
		}
	}
	return pairs, nil
}

func parseAddr(family func(netip.Addr) bool) func(string) (any, error) {
	return func(s string) (any, error) {
		a, err := netip.ParseAddr(s)
		if err != nil || !family(a) || a.Zone() != "" {
			return nil, errWant
		}
		return a, nil
	}
}

func parseEndpoint(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Port() == "" {
		return "", errWant
	}
	return s, nil
}

func parseRange(s string) (PortRange, error) {
	p, err := api.ParsePort(s)
	if err != nil || p.Name != "" {
		return PortRange{}, errWant
	}
	return PortRange{p.Min, p.Max}, nil
}

// parseHostPort parses PORT, PROTOCOL:PORT or PROTOCOL:NET:PORT. An IPv6 NET stands in
// brackets.
func parseHostPort(s string) (HostPort, error) {
	p := HostPort{Protocol: "tcp"}
	at := strings.LastIndexByte(s, ':')
	n, err := strconv.ParseUint(s[at+1:], 10, 16)
	if err != nil {
		return p, errWant
	}
	p.Port = uint16(n)
	if at < 0 {
		return p, nil
	}
	protocol, net, hasNet := strings.Cut(s[:at], ":")
	p.Protocol = strings.ToLower(protocol)
	if p.Protocol != "tcp" && p.Protocol != "udp" {
		return p, errWant
	}
	if hasNet {
		p.Net, err = api.ParseNet(strings.TrimSuffix(strings.TrimPrefix(net, "["), "]"))
	}
	return p, err
}

// markMask is a mask of the packet mark. Policy takes some of its bits for its own, as package filter has it.
func markMask(least int) Type {
	return Type{fmt.Sprintf("a 32-bit mask with at least %d bits set, such as 0xffff0000", least), uint32(0), func(s string) (any, error) {
		n, err := strconv.ParseUint(s, 0, 32)
		if err != nil || bits.OnesCount64(n) < least {
			return nil, errWant
		}
		return uint32(n), nil
	}, yamlNumber}
}

// dscpNames are those of RFC 2474, 2597, 3246, 5865 and 8622.
var dscpNames = map[string]uint8{
	"DF": 0, "CS0": 0, "CS1": 8, "CS2": 16, "CS3": 24, "CS4": 32, "CS5": 40, "CS6": 48, "CS7": 56,
	"AF11": 10, "AF12": 12, "AF13": 14, "AF21": 18, "AF22": 20, "AF23": 22,
	"AF31": 26, "AF32": 28, "AF33": 30, "AF41": 34, "AF42": 36, "AF43": 38,
	"EF": 46, "VA": 44, "LE": 1,
}

func parseDSCP(s string) (any, error) {
	if n, ok := dscpNames[strings.ToUpper(s)]; ok {
		return n, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n > 63 {
		return nil, errWant
	}
	return uint8(n), nil
}

func parseTables(most int) func(string) (TableRange, error) {
	return func(s string) (TableRange, error) {
		lo, hi, ok := strings.Cut(s, "-")
		a, errA := strconv.ParseUint(lo, 10, 32)
		b, errB := strconv.ParseUint(hi, 10, 32)
		if !ok || errA != nil || errB != nil || a > b || b > uint64(most) {
			return TableRange{}, errWant
		}
		return TableRange{int(a), int(b)}, nil
	}
}

func parseTableRanges(s string) (any, error) {
	list := strings.Join(strings.Fields(s), ",")
	v, err := parseList(parseTables(math.MaxUint32))(list)
	if err != nil {
		return nil, err
	}
	const most = 0xffff // as upstream: tables in all ranges together
	total := 0
	for _, r := range v.([]TableRange) {
		total += r.Max - r.Min + 1
	}
	if total > most || slices.ContainsFunc(v.([]TableRange), func(r TableRange) bool { return r.Min == 0 }) {
		return nil, fmt.Errorf("names table 0, or more than %d tables", most)
	}
	return v, nil
}

// parsePrefixes wants at least one: without, no interface would be a pod's.
func parsePrefixes(s string) (any, error) {
	v, err := parseList(matching(ifacePrefix))(s)
	if err == nil && len(v.([]string)) == 0 {
		return nil, errWant
	}
	return v, err
}

func parseInterface(s string) (string, error) {
	if len(s) > 1 && s[0] == '/' && s[len(s)-1] == '/' {
		_, err := regexp.Compile(s[1 : len(s)-1])
		return s, err
	}
	return matching(ifaceName)(s)
}
