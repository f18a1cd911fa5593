package lab_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// rulebook is a set of policies over a few pods, small enough that what it means is told here
// in a page, by nothing of the product: who may open a flow to whom.
type rulebook struct {
	pods     []string
	addrs    map[string][2]string // of each pod, IPv4 and IPv6
	policies map[string]bookPolicy
	sets     map[string][]string // network sets: the pods whose addresses they hold
	were     map[string][]string // what sets was before the last change
	endsPass bool                // the tier `first` ends by passing
}

// bookPolicy is a policy of the tier `first` or the default one.
type bookPolicy struct {
	first            bool // its tier
	global           bool
	order            int
	pods             []string // that it selects
	ingress, egress  bool
	inRules, egRules []bookRule
}

type bookRule struct {
	action   string   // Allow, Deny or Pass
	protocol string   // TCP, UDP or ""
	peers    []string // nil: anybody, unless there is a set
	set      string   // the peers are whoever is in that network set
	not      bool     // anybody but the peers
	family   int      // 4 or 6: the peers by address; 0: by label
}

// flow is what a probe opens.
type flow struct {
	from, to, protocol string
	family             int
}

// leaves tells whether the egress policies of the sender let a flow out.
func (b *rulebook) leaves(f flow) bool { return b.judge(f.from, f.to, false, f, b.sets) }

// enters tells whether the ingress policies of the target let it in.
func (b *rulebook) enters(f flow) bool { return b.judge(f.to, f.from, true, f, b.sets) }

// opens tells whether a flow may be opened all the time that the last change takes. Rules change
// at one moment. Of the sets that change, what takes away comes before what gives
// ([filter.Changes.Steps]): meanwhile a rule that lets pass fits only what it fits both before
// and after, one that denies whatever it fits before or after, and one that passes on denies
// what it fits at one time only.
func (b *rulebook) opens(f flow) (leaves, enters bool) {
	return b.judge(f.from, f.to, false, f, b.were), b.judge(f.to, f.from, true, f, b.were)
}

// judge goes through the tiers of one pod in one direction, and then to the profile, which
// allows. The network sets are changing from those to what they are.
func (b *rulebook) judge(pod, peer string, ingress bool, f flow, were map[string][]string) bool {
	for _, first := range []bool{true, false} {
		switch b.tier(first, pod, peer, ingress, f, were) {
		case "Allow":
			return true
		case "Deny":
			return false
		}
	}
	return true
}

// tier is what the policies of one tier that govern the pod say.
func (b *rulebook) tier(first bool, pod, peer string, ingress bool, f flow, were map[string][]string) string {
	var governing []bookPolicy
	for _, p := range b.policies {
		if p.first == first && slices.Contains(p.pods, pod) && (ingress && p.ingress || !ingress && p.egress) {
			governing = append(governing, p)
		}
	}
	if len(governing) == 0 {
		return "Pass"
	}
	slices.SortFunc(governing, func(a, b bookPolicy) int { return a.order - b.order })
	for _, p := range governing {
		rules := p.egRules
		if ingress {
			rules = p.inRules
		}
		for _, r := range rules {
			before, after := r.matches(were, p.global, peer, f), r.matches(b.sets, p.global, peer, f)
			switch {
			case before && after, r.action == "Deny" && (before || after):
				return r.action
			case r.action == "Pass" && (before || after):
				return "Deny"
			}
		}
	}
	if first && b.endsPass {
		return "Pass"
	}
	return "Deny"
}

func (r bookRule) matches(sets map[string][]string, global bool, peer string, f flow) bool {
	switch {
	case r.protocol != "" && r.protocol != f.protocol, r.family != 0 && r.family != f.family:
		return false
	case r.not && !global && r.family == 0 && (r.set != "" || r.peers != nil):
		// notSelector in a policy of a namespace means who is of the namespace but not selected.
		// A pod's address is such if the pod is, or a network set that has the address: no pod
		// has the label `set`, and no set the label `name`.
		return r.set != "" || !slices.Contains(r.peers, peer) || slices.Contains(sets["s0"], peer) || slices.Contains(sets["s1"], peer)
	case r.set != "":
		return slices.Contains(sets[r.set], peer) != r.not
	case r.peers == nil:
		return true
	}
	return slices.Contains(r.peers, peer) != r.not
}

// change makes a random change and returns the objects to apply or to delete.
func (b *rulebook) change(r *rand.Rand) (verb, objects string) {
	b.were = b.sets
	slot := r.IntN(8)
	name := fmt.Sprintf("p%d", slot)
	old, there := b.policies[name]
	switch {
	case r.IntN(4) == 0:
		set := fmt.Sprintf("s%d", r.IntN(2))
		b.sets = maps.Clone(b.sets)
		b.sets[set] = b.some(r)
		return "apply", b.setText(set)
	case r.IntN(12) == 0:
		b.endsPass = !b.endsPass
		return "apply", b.tierText()
	case there && r.IntN(3) == 0:
		delete(b.policies, name)
		return "delete", b.text(name, old)
	}
	p := bookPolicy{first: slot < 3, global: slot%2 == 0, order: r.IntN(50)*10 + slot, pods: b.some(r)}
	p.ingress, p.egress = r.IntN(3) > 0, r.IntN(3) == 0
	if !p.ingress && !p.egress {
		p.ingress = true
	}
	for range 1 + r.IntN(3) {
		p.inRules, p.egRules = append(p.inRules, b.rule(r)), append(p.egRules, b.rule(r))
	}
	b.policies[name] = p
	return "apply", b.text(name, p)
}

func (b *rulebook) rule(r *rand.Rand) bookRule {
	rule := bookRule{action: []string{"Allow", "Allow", "Allow", "Deny", "Pass"}[r.IntN(5)], not: r.IntN(4) == 0}
	rule.protocol = []string{"", "", "TCP", "UDP"}[r.IntN(4)]
	switch r.IntN(6) {
	case 0:
	case 1, 2:
		rule.set = fmt.Sprintf("s%d", r.IntN(2))
	default:
		rule.peers = b.some(r)
		rule.family = []int{0, 0, 4, 6}[r.IntN(4)]
	}
	return rule
}

// some are one pod or more, in their order.
func (b *rulebook) some(r *rand.Rand) []string {
	var all []string
	for _, p := range b.pods {
		if r.IntN(2) == 0 {
			all = append(all, p)
		}
	}
	if all == nil {
		all = []string{b.pods[r.IntN(len(b.pods))]}
	}
	return all
}

func (b *rulebook) setText(name string) string {
	var nets []string
	for _, p := range b.sets[name] {
		nets = append(nets, b.addrs[p][0]+"/32", fmt.Sprintf("%q", b.addrs[p][1]+"/128"))
	}
	return "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: " + name + ", namespace: default, labels: {set: " + name +
		"}}\nspec: {nets: [" + strings.Join(nets, ", ") + "]}\n"
}

func (b *rulebook) tierText() string {
	action := "Deny"
	if b.endsPass {
		action = "Pass"
	}
	return "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: first}\nspec: {order: 10, defaultAction: " + action + "}\n"
}

// text is a policy as users write it.
func (b *rulebook) text(name string, p bookPolicy) string {
	var t strings.Builder
	tier, kind, place := "default", "NetworkPolicy", ", namespace: default"
	if p.first {
		tier, name = "first", "first."+name
	}
	if p.global {
		kind, place = "GlobalNetworkPolicy", ""
	}
	fmt.Fprintf(&t, "apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: %s%s}\nspec:\n", kind, name, place)
	fmt.Fprintf(&t, "  tier: %s\n  order: %d\n  selector: %s\n", tier, p.order, selectorOf(p.pods))
	var types []string
	if p.ingress {
		types = append(types, "Ingress")
	}
	if p.egress {
		types = append(types, "Egress")
	}
	fmt.Fprintf(&t, "  types: [%s]\n", strings.Join(types, ", "))
	b.rulesText(&t, p.ingress, "ingress", "source", p.inRules)
	b.rulesText(&t, p.egress, "egress", "destination", p.egRules)
	return t.String()
}

func (b *rulebook) rulesText(t *strings.Builder, used bool, direction, side string, rules []bookRule) {
	if !used {
		return
	}
	fmt.Fprintf(t, "  %s:\n", direction)
	for _, r := range rules {
		fmt.Fprintf(t, "  - action: %s\n", r.action)
		if r.protocol != "" {
			fmt.Fprintf(t, "    protocol: %s\n", r.protocol)
		}
		if r.peers != nil || r.set != "" {
			fmt.Fprintf(t, "    %s: {%s}\n", side, b.peerText(r))
		}
	}
}

func (b *rulebook) peerText(r bookRule) string {
	selector, nets := "selector", "nets"
	if r.not {
		selector, nets = "notSelector", "notNets"
	}
	if r.set != "" {
		return fmt.Sprintf("%s: \"set == '%s'\"", selector, r.set)
	}
	if r.family == 0 {
		return fmt.Sprintf("%s: %q", selector, selectorOf(r.peers))
	}
	var list []string
	for _, p := range r.peers {
		if r.family == 4 {
			list = append(list, b.addrs[p][0]+"/32")
		} else {
			list = append(list, fmt.Sprintf("%q", b.addrs[p][1]+"/128"))
		}
	}
	return fmt.Sprintf("%s: [%s]", nets, strings.Join(list, ", "))
}

func selectorOf(pods []string) string {
	return "name in {'" + strings.Join(pods, "', '") + "'}"
}
