package filter

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/calicogo/calico/dataplane"
)

// Names of chains and maps are Calico's, which people grep for. All begin with cali, so
// none is a word of the nft language.
const (
	chainRaw         = "cali-raw-PREROUTING"
	chainInput       = "cali-INPUT"
	chainForward     = "cali-FORWARD"
	chainOutput      = "cali-OUTPUT"
	chainPostrouting = "cali-nat-POSTROUTING"

	chainSource   = "cali-wl-source" // anti-spoofing
	chainWlToHost = "cali-wl-to-host"
	chainCut      = "cali-cut"     // of flows that policy has come to deny
	chainFromWl   = "cali-from-wl" // returns what the source's egress policy allows
	chainToWl     = "cali-to-wl"   // returns what the destination's ingress policy allows

	mapFromWl = "cali-from-wl-dispatch"
	mapToWl   = "cali-to-wl-dispatch"

	setIfaces  = "cali-interfaces"      // of known pods
	setSources = "cali-sources"         // who may send from which address
	setFurther = "cali-sources-further" // and network
)

func chainFrom(i dataplane.Interface) string { return "cali-fw-" + string(i) }
func chainTo(i dataplane.Interface) string   { return "cali-tw-" + string(i) }

// chainPolicy is the name of a policy's or profile's chain, at most 28 bytes long, which
// is what iptables takes.
func chainPolicy(id dataplane.PolicyID, ingress bool) string {
	prefix := "cali-po-"
	switch profile := id.Kind == "Profile"; {
	case profile && ingress:
		prefix = "cali-pri-"
	case profile:
		prefix = "cali-pro-"
	case ingress:
		prefix = "cali-pi-"
	}
	return prefix + hash(id.Kind + "\x00" + id.Namespace + "\x00" + id.Name)[:28-len(prefix)]
}

// chainGroup is the name of the chain of all endpoints that the same policies and profiles govern in
// one direction.
func chainGroup(g *group) string {
	prefix := map[bool]string{false: "cali-go-", true: "cali-gi-"}[g.ingress]
	var b []byte
	list := func(ids []dataplane.PolicyID) {
		b = binary.AppendUvarint(b, uint64(len(ids)))
		for _, id := range ids {
			for _, s := range []string{id.Kind, id.Namespace, id.Name} {
				b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(g.tiers)))
	for _, t := range g.tiers {
		b = binary.AppendUvarint(b, uint64(t.Default))
		list(t.Policies)
	}
	list(g.profiles)
	return prefix + hash(string(b))[:28-len(prefix)]
}

// hash is of 43 letters that every backend takes in names.
func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Names of the sets that users know.
var wellKnown = map[dataplane.SetID]string{
	dataplane.SetAllPools:  "all-ipam-pools",
	dataplane.SetMasqPools: "masq-ipam-pools",
	dataplane.SetNodes:     "all-hosts-net",
}

// setName is the name of a dataplane set's members of one family and kind, in one sense.
func setName(id dataplane.SetID, f dataplane.Family, k SetKind, s Sense) string {
	family := [...]string{dataplane.IPv4: "4", dataplane.IPv6: "6"}[f]
	kind := [...]string{Nets: "0", Addrs: "a", Triples: "p"}[k]
	return "cali" + family + kind + plainName(id) + [...]string{Neutral: "", Opens: "", Closes: "/deny"}[s]
}

// plainName is the id as every backend takes it.
func plainName(id dataplane.SetID) string {
	if name, ok := wellKnown[id]; ok {
		return name
	}
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == ':'
	}
	s := string(id)
	if len(s) > 100 || strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) >= 0 {
		s = "h:" + hash(s)
	}
	return strings.ReplaceAll(s, ":", ".") // ids have no dot left, so names stay distinct
}
