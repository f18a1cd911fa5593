package api

import (
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What NetworkPolicy and GlobalNetworkPolicy have in common.

// defaultTypes returns the directions that a policy governs: those that the user named,
// else those that its rules are about; Ingress if it has no rules.
func defaultTypes(types []PolicyType, ingress, egress []Rule) []PolicyType {
	switch {
	case len(types) > 0:
		return types
	case len(egress) == 0:
		return []PolicyType{Ingress}
	case len(ingress) == 0:
		return []PolicyType{Egress}
	}
	return []PolicyType{Ingress, Egress}
}

// defaultTier fills in the tier and repeats it in the label that lists by tier use.
func defaultTier(m *Meta, tier *string) {
	if *tier == "" {
		*tier = DefaultTier
	}
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	m.Labels[LabelTier] = *tier
}

const (
	dnsLabel     = `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
	dnsSubdomain = dnsLabel + `(\.` + dnsLabel + `)*`
)

var (
	policyName     = regexp.MustCompile(`^((` + dnsLabel + `)(\.` + dnsLabel + `)?|(knp|ossg)\.default\.` + dnsSubdomain + `)$`)
	clusterPolName = regexp.MustCompile(`^(` + dnsLabel + `)(\.` + dnsLabel + `)?$`)
)

// policyNameRule accepts name and tier.name, as upstream does.
func policyNameRule(form *regexp.Regexp) nameRule {
	return func(s string) []string {
		if len(strings.TrimPrefix(s, KubePolicyPrefix)) > validation.DNS1123SubdomainMaxLength {
			return []string{validation.MaxLenError(validation.DNS1123SubdomainMaxLength)}
		}
		if !form.MatchString(s) {
			return []string{"must be NAME or TIER.NAME, both of lower case letters, digits and '-', beginning and ending with a letter or digit"}
		}
		return nil
	}
}

// policyTypes checks the field types.
func (p *problems) policyTypes(types []PolicyType) {
	at := specPath.Child("types")
	seen := map[PolicyType]bool{}
	for i, t := range types {
		if t == "" {
			p.required(at.Index(i), "Ingress or Egress")
		}
		oneOf(p, at.Index(i), t, Ingress, Egress)
		if seen[t] {
			p.list = append(p.list, field.Duplicate(at.Index(i), t))
		}
		seen[t] = true
	}
}

func (p *problems) tierAndHints(tier string, hints []string) {
	if tier != "" {
		p.each(specPath.Child("tier"), tier, validation.IsDNS1123Label(tier))
	}
	for i, h := range hints {
		if h == "" {
			p.required(specPath.Child("performanceHints").Index(i), "AssumeNeededOnEveryNode")
		}
		oneOf(p, specPath.Child("performanceHints").Index(i), h, "AssumeNeededOnEveryNode")
	}
}

// policyRules checks the rules of both directions; global says that they have no
// namespace of their own.
func (p *problems) policyRules(ingress, egress []Rule, global bool) {
	ruleCheck{p, Ingress, global}.rules(specPath.Child("ingress"), ingress)
	ruleCheck{p, Egress, global}.rules(specPath.Child("egress"), egress)
}
