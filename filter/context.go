package filter

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/calicogo/calico/dataplane"
)

// context is what every chain's rules depend on. Its methods return rules; they note
// the sets and policy chains that these refer to.
type context struct {
	family   dataplane.Family
	set      dataplane.Settings
	tunnels  map[string]dataplane.Tunnel
	accept   uint32     // mark: allowed by policy
	pass     uint32     // mark: leave the tier
	cut      uint32     // mark of the flow: policy has come to deny it
	snat     netip.Addr // natOutgoing's source; invalid: masquerade
	contents contents
	sets     map[string]setSource
	noted    []string // names put into sets since the Compiler last looked
	policies map[string]policyChain
	groups   map[string]group
}

// contents are what sets have of one family.
type contents interface {
	kinds(dataplane.SetID) []SetKind // of the sets that hold its addresses and prefixes; never none
	elements(dataplane.SetID, SetKind) map[Element]struct{}
}

// setSource says what is in a set.
type setSource struct {
	kind     SetKind
	sense    Sense
	id       dataplane.SetID // of dataplane's set, or
	elements []Element       // constant
}

// policyChain says whose rules are in a policy chain.
type policyChain struct {
	id      dataplane.PolicyID
	ingress bool
}

// newContext returns an error if the settings cannot be held.
func newContext(s *dataplane.State, f dataplane.Family, sets contents) (*context, error) {
	c := &context{
		family: f, set: s.Settings, tunnels: s.Tunnels, contents: sets,
		sets: map[string]setSource{}, policies: map[string]policyChain{}, groups: map[string]group{},
	}
	if err := c.marks(s.Settings.MarkMask); err != nil {
		return nil, err
	}
	if err := checkPrefixes(s.Settings.InterfacePrefixes); err != nil {
		return nil, err
	}
	if n := len(s.Settings.LogPrefix); n > maxLogPrefix {
		return nil, fmt.Errorf("LogPrefix: %d bytes; the kernel takes %d", n, maxLogPrefix)
	}
	return c, c.natAddr(s.Settings.NATOutgoingAddr)
}

// maxLogPrefix leaves room for what [Log] adds, within the kernel's 127 bytes.
const maxLogPrefix = 125

// marks takes the lowest bits of the mask. Iptables needs one more for itself.
func (c *context) marks(mask uint32) error {
	name, need := "NftablesMarkMask", 3
	if c.set.Backend == dataplane.Iptables {
		name, need = "IptablesMarkMask", 4
	}
	if given := bits.OnesCount32(mask); given < need {
		return fmt.Errorf("%s %#x: %v needs %d bits of the mark, and these are %d; set more bits", name, mask, c.set.Backend, need, given)
	}
	for _, bit := range []*uint32{&c.accept, &c.pass, &c.cut} {
		*bit = mask & -mask
		mask &^= *bit
	}
	return nil
}

// Marks returns the bits of the mask that programs use: of the packet's mark, and of the flow's
// that says that policy has come to deny it; and the bits that are left to backends.
func Marks(mask uint32) (packet, cut, spare uint32) {
	c := context{}
	if c.marks(mask) != nil {
		return 0, 0, 0
	}
	packet = c.accept | c.pass
	return packet, c.cut, mask &^ (packet | c.cut)
}

func checkPrefixes(prefixes []string) error {
	if len(prefixes) == 0 {
		return errors.New("InterfacePrefix: empty; name at least one prefix of pods' interfaces, such as cali")
	}
	for _, p := range prefixes {
		if p == "" || len(p) > 14 || strings.ContainsAny(p, "/ \t\n\x00") {
			return fmt.Errorf("InterfacePrefix %q: not the beginning of a device name; give 1 to 14 letters", p)
		}
	}
	return nil
}

func (c *context) natAddr(s string) error {
	if s == "" {
		return nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return fmt.Errorf("NATOutgoingAddress %q: not an IP address", s)
	}
	if dataplane.FamilyOf(a) == c.family {
		c.snat = a
	}
	return nil
}

// off tells whether the family is not in use: then pods may not speak it at all.
func (c *context) off() bool { return c.family == dataplane.IPv6 && !c.set.IPv6 }

// allow is the verdict on what policy allows, at the end of a hook.
func (c *context) allow() Verdict {
	if c.set.FilterAllow == dataplane.Return {
		return Return
	}
	return Accept
}

func (c *context) deny() Verdict {
	if c.set.FilterDeny == dataplane.Reject {
		return Reject
	}
	return Drop
}

func (c *context) marked(bit uint32) Match   { return Match{Field: Mark, Value: Bits{bit, bit}} }
func (c *context) unmarked(bit uint32) Match { return Match{Field: Mark, Value: Bits{bit, 0}} }

func setMark(bit uint32) Action     { return SetMark{bit, bit} }
func clearMarks(bits uint32) Action { return SetMark{bits, 0} }

// workload returns a match for each way in which the device may be a pod's. No device fits
// two of them, so that no packet is judged twice.
func (c *context) workload(f Field) []Match {
	var out []Match
	last := Iface{}
	for _, p := range slices.Sorted(slices.Values(c.set.InterfacePrefixes)) {
		if !last.Prefix || !strings.HasPrefix(p, last.Name) {
			last = Iface{Name: p, Prefix: true}
			out = append(out, Match{Field: f, Value: last})
		}
	}
	return out
}

// ref notes a set that a match in this sense needs, and returns the reference to it.
func (c *context) ref(id dataplane.SetID, k SetKind, s Sense) SetRef {
	name := setName(id, c.family, k, s)
	return c.note(name, setSource{kind: k, sense: s, id: id})
}

// in returns the alternatives of the match of an address in the set.
func (c *context) in(f Field, id dataplane.SetID, s Sense) (either [][]Match) {
	for _, k := range c.contents.kinds(id) {
		either = append(either, []Match{{Field: f, Value: c.ref(id, k, s)}})
	}
	return either
}

// notIn returns the match of an address that is not in the set.
func (c *context) notIn(f Field, id dataplane.SetID, s Sense) (all []Match) {
	for _, k := range c.contents.kinds(id) {
		all = append(all, Match{Field: f, Not: true, Value: c.ref(id, k, s)})
	}
	return all
}

// constant notes a set of fixed contents, named by them.
func (c *context) constant(k SetKind, elements []Element) SetRef {
	prefix := map[SetKind]string{Nets: "cali-nets-", PortRanges: "cali-ports-"}[k]
	name := prefix + hash(fmt.Sprint(elements))[:20]
	return c.note(name, setSource{kind: k, elements: elements})
}

func (c *context) note(name string, src setSource) SetRef {
	if _, ok := c.sets[name]; !ok {
		c.sets[name] = src
		c.noted = append(c.noted, name)
	}
	return SetRef{name, src.kind}
}

// fixed returns the sets and maps that base chains refer to and endpoints fill.
func (c *context) fixed() (map[string]*Set, map[string]*Map) {
	if c.off() {
		return nil, nil
	}
	sets := map[string]*Set{
		setIfaces:  {Kind: Ifaces, Elements: map[Element]struct{}{}},
		setSources: {Kind: IfaceAddrs, Elements: map[Element]struct{}{}},
	}
	if c.set.AllowSpoofing {
		sets[setFurther] = &Set{Kind: IfaceNets, Elements: map[Element]struct{}{}}
	}
	return sets, map[string]*Map{
		mapFromWl: {Field: InIface, Chains: map[string]string{}},
		mapToWl:   {Field: OutIface, Chains: map[string]string{}},
	}
}

func (c *context) sortedTunnels() []string { return slices.Sorted(maps.Keys(c.tunnels)) }
