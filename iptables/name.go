package iptables

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// What bears one of these is ours.
const (
	chainPrefix   = "cali-"
	commentPrefix = "cali:"
)

// setPrefixes are what names of our sets begin with: of IPv4's, of IPv6's, and of the temporary
// ones of both.
var setPrefixes = [...]string{"cali40", "cali60", "cali4t", "cali6t"}

func isOurSet(name string) bool {
	for _, p := range setPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

const (
	maxChainName = 28 // XT_EXTENSION_MAXNAMELEN, less the NUL
	maxSetName   = 31 // IPSET_MAXNAMELEN, less the NUL
)

// hash is of 43 letters that may stand in names and comments.
func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// chainName is the kernel's name for a chain that is no base chain.
func chainName(key string) string {
	if len(key) <= maxChainName {
		return key
	}
	return chainPrefix + hash(key)[:maxChainName-len(chainPrefix)]
}

var hookNames = [...]string{
	filter.Prerouting: "PREROUTING", filter.Input: "INPUT", filter.Forward: "FORWARD",
	filter.Output: "OUTPUT", filter.Postrouting: "POSTROUTING",
}

// baseName is the kernel's name for a base chain: Calico's.
func baseName(h filter.Hook) string { return chainPrefix + hookNames[h] }

// setName is ipset's name for a set of the program; a higher attempt gives another one, where
// the first is taken. Single addresses, named ports and prefixes of one set of dataplane's differ in
// the end of the name.
func setName(f dataplane.Family, name string, kind filter.SetKind, attempt int) string {
	family := "cali" + [...]string{dataplane.IPv4: "4", dataplane.IPv6: "6"}[f] + "0"
	rest, ours := strings.CutPrefix(name, family[:5])
	switch {
	case ours && rest != "":
		rest = rest[1:] + map[filter.SetKind]string{filter.Addrs: ":a", filter.Triples: ":p"}[kind]
	default:
		rest = strings.TrimPrefix(name, chainPrefix)
	}
	if attempt == 0 && len(family)+len(rest) <= maxSetName {
		return family + rest
	}
	seed := name + strings.Repeat("'", attempt)
	return family + hash(seed)[:maxSetName-len(family)]
}

// tempName is a name under which a set is made that is to take another's place.
func tempName(name string) string {
	return name[:5] + "t" + hash(name)[:maxSetName-6]
}

// table is one of iptables'.
type table uint8

const (
	raw table = iota
	mangle
	nat
	filterTable
	tables // how many there are
)

var tableNames = [...]string{raw: "raw", mangle: "mangle", nat: "nat", filterTable: "filter"}

func (t table) String() string { return tableNames[t] }

func tableOf(t filter.Table) table {
	return map[filter.Table]table{
		filter.RawTable: raw, filter.MangleTable: mangle, filter.NATTable: nat, filter.FilterTable: filterTable,
	}[t]
}

func tableNamed(name string) (table, bool) {
	for t, n := range tableNames {
		if n == name {
			return table(t), true
		}
	}
	return 0, false
}
