package api

import (
	"cmp"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Action is what a rule does with a packet that it matches.
type Action string

const (
	Allow Action = "Allow"
	Deny  Action = "Deny"
	Log   Action = "Log"
	Pass  Action = "Pass" // leave the tier; the next one decides
)

// PolicyType is a direction, as the policy's endpoints see it.
type PolicyType string

const (
	Ingress PolicyType = "Ingress"
	Egress  PolicyType = "Egress"
)

// Rule matches packets: every field that is given must match.
type Rule struct {
	Action      Action        `json:"action"`
	IPVersion   *int          `json:"ipVersion,omitempty"` // 4 or 6
	Protocol    *Protocol     `json:"protocol,omitempty"`
	ICMP        *ICMP         `json:"icmp,omitempty"`
	NotProtocol *Protocol     `json:"notProtocol,omitempty"`
	NotICMP     *ICMP         `json:"notICMP,omitempty"`
	Source      EntityRule    `json:"source,omitzero"`
	Destination EntityRule    `json:"destination,omitzero"`
	HTTP        *HTTPMatch    `json:"http,omitempty"`
	Metadata    *RuleMetadata `json:"metadata,omitempty"`
}

// ICMP matches a type (0 to 254) and, if given, a code.
type ICMP struct {
	Type *int `json:"type,omitempty"`
	Code *int `json:"code,omitempty"`
}

// EntityRule matches one end of a packet's path.
type EntityRule struct {
	Nets              []string             `json:"nets,omitempty"`
	Selector          string               `json:"selector,omitempty"`
	NamespaceSelector string               `json:"namespaceSelector,omitempty"`
	Services          *ServiceMatch        `json:"services,omitempty"`
	Ports             []Port               `json:"ports,omitempty"`
	NotNets           []string             `json:"notNets,omitempty"`
	NotSelector       string               `json:"notSelector,omitempty"`
	NotPorts          []Port               `json:"notPorts,omitempty"`
	ServiceAccounts   *ServiceAccountMatch `json:"serviceAccounts,omitempty"`
}

// ServiceMatch matches the endpoints of a Kubernetes Service.
type ServiceMatch struct {
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// ServiceAccountMatch matches pods by their service account.
type ServiceAccountMatch struct {
	Names    []string `json:"names,omitempty"`
	Selector string   `json:"selector,omitempty"`
}

// HTTPMatch matches HTTP requests, where an application layer proxy enforces it.
type HTTPMatch struct {
	Methods []string   `json:"methods,omitempty"`
	Paths   []HTTPPath `json:"paths,omitempty"`
}

// HTTPPath matches a path exactly or by prefix.
type HTTPPath struct {
	Exact  string `json:"exact,omitempty"`
	Prefix string `json:"prefix,omitempty"`
}

// RuleMetadata annotates a rule.
type RuleMetadata struct {
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Limits of upstream's schema.
const (
	maxRules    = 1024
	maxNets     = 256
	maxPorts    = 50
	maxHTTP     = 20
	maxHTTPPath = 1024
)

// defaultRules writes protocol names as Calico does.
func defaultRules(rules []Rule) {
	for i := range rules {
		for _, p := range []*Protocol{rules[i].Protocol, rules[i].NotProtocol} {
			if p != nil {
				*p = p.canonical()
			}
		}
	}
}

// ruleCheck knows where a rule stands.
type ruleCheck struct {
	*problems
	direction PolicyType
	global    bool // the rule is of a GlobalNetworkPolicy or Profile, which has no namespace of its own
}

func (c ruleCheck) rules(at *field.Path, rules []Rule) {
	tooMany(c.problems, at, rules, maxRules)
	for i := range rules {
		c.rule(at.Index(i), &rules[i])
	}
}

func (c ruleCheck) rule(at *field.Path, r *Rule) {
	if r.Action == "" {
		c.required(at.Child("action"), "one of Allow, Deny, Log, Pass")
	}
	oneOf(c.problems, at.Child("action"), r.Action, Allow, Deny, Log, Pass)
	if v := r.IPVersion; v != nil && *v != 4 && *v != 6 {
		c.invalid(at.Child("ipVersion"), *v, "must be 4 or 6")
	}
	c.protocol(at.Child("protocol"), r.Protocol)
	c.protocol(at.Child("notProtocol"), r.NotProtocol)
	c.icmp(at.Child("icmp"), r, r.ICMP)
	c.icmp(at.Child("notICMP"), r, r.NotICMP)
	c.versions(at, r)
	c.portsNeedProtocol(at, r)
	c.entity(at.Child("source"), &r.Source)
	c.entity(at.Child("destination"), &r.Destination)
	c.services(at, r)
	if r.HTTP != nil {
		c.http(at, r)
	}
}

func (c ruleCheck) protocol(at *field.Path, p *Protocol) {
	if p == nil {
		return
	}
	if _, ok := p.Number(); !ok {
		c.invalid(at, string(*p), "must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255")
	}
}

func (c ruleCheck) icmp(at *field.Path, r *Rule, m *ICMP) {
	if m == nil {
		return
	}
	if n, _ := r.protocolNumber(); n != 1 && n != 58 {
		c.forbidden(at, "a rule about ICMP types must set protocol to ICMP or ICMPv6")
	}
	if m.Type != nil {
		c.between(at.Child("type"), *m.Type, 0, 254)
	}
	if m.Code != nil {
		c.between(at.Child("code"), *m.Code, 0, 255)
		if m.Type == nil {
			c.required(at.Child("type"), "an ICMP code needs an ICMP type")
		}
	}
}

// versions checks that all of a rule speaks of one IP version.
func (c ruleCheck) versions(at *field.Path, r *Rule) {
	version := 0
	if r.IPVersion != nil {
		version = *r.IPVersion
	}
	for _, p := range []*Protocol{r.Protocol, r.NotProtocol} {
		if p == nil {
			continue
		}
		n, _ := p.Number()
		if want := map[uint8]int{1: 4, 58: 6}[n]; want != 0 && version != 0 && version != want {
			c.invalid(at.Child("ipVersion"), version, "protocol %s is of IPv%d", *p, want)
		}
	}
	for _, l := range r.netLists(at) {
		for i, s := range l.nets {
			net, err := ParseNet(s)
			if err != nil {
				continue // entity tells
			}
			v := 6
			if net.Addr().Is4() {
				v = 4
			}
			if version != 0 && v != version {
				c.invalid(l.at.Index(i), s, "the rule is already about IPv%d: a rule cannot speak of both IP versions", version)
			}
			version = cmp.Or(version, v)
		}
	}
}

type netList struct {
	at   *field.Path
	nets []string
}

func (r *Rule) netLists(at *field.Path) []netList {
	src, dst := at.Child("source"), at.Child("destination")
	return []netList{
		{src.Child("nets"), r.Source.Nets}, {src.Child("notNets"), r.Source.NotNets},
		{dst.Child("nets"), r.Destination.Nets}, {dst.Child("notNets"), r.Destination.NotNets},
	}
}

func (c ruleCheck) portsNeedProtocol(at *field.Path, r *Rule) {
	if r.Protocol != nil && r.Protocol.hasPorts() {
		return
	}
	src, dst := at.Child("source"), at.Child("destination")
	for _, l := range []struct {
		at    *field.Path
		ports []Port
	}{
		{src.Child("ports"), r.Source.Ports}, {src.Child("notPorts"), r.Source.NotPorts},
		{dst.Child("ports"), r.Destination.Ports}, {dst.Child("notPorts"), r.Destination.NotPorts},
	} {
		if len(l.ports) > 0 {
			c.forbidden(l.at, "a rule with ports must set protocol to TCP, UDP, SCTP or UDPLite")
		}
	}
}

func (c ruleCheck) entity(at *field.Path, e *EntityRule) {
	c.nets(at.Child("nets"), e.Nets)
	c.nets(at.Child("notNets"), e.NotNets)
	c.ports(at.Child("ports"), e.Ports)
	c.ports(at.Child("notPorts"), e.NotPorts)
	c.selector(at.Child("selector"), e.Selector, false)
	c.selector(at.Child("notSelector"), e.NotSelector, false)
	c.selector(at.Child("namespaceSelector"), e.NamespaceSelector, true)
	if sa := e.ServiceAccounts; sa != nil {
		c.anySelector(at.Child("serviceAccounts", "selector"), sa.Selector, false)
		for i, n := range sa.Names {
			c.each(at.Child("serviceAccounts", "names").Index(i), n, validation.IsDNS1123Subdomain(n))
		}
	}
	if e.Services != nil {
		c.servicesAlone(at, e)
	}
}

func (c ruleCheck) nets(at *field.Path, nets []string) {
	tooMany(c.problems, at, nets, maxNets)
	for i, s := range nets {
		c.net(at.Index(i), s, 0)
	}
}

var portName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)

func (c ruleCheck) ports(at *field.Path, ports []Port) {
	tooMany(c.problems, at, ports, maxPorts)
	for i, p := range ports {
		switch {
		case p.Name != "" && !portName.MatchString(p.Name):
			c.invalid(at.Index(i), p.Name, "must be a number, a range such as 1000:2000, or the name of a port: 1 to 128 letters, digits, '_', '.' or '-'")
		case p.Name == "" && p.Min == 0:
			c.invalid(at.Index(i), p.String(), "must be from 1 to 65535")
		case p.Name == "" && p.Min > p.Max:
			c.invalid(at.Index(i), p.String(), "the range ends before it begins")
		}
	}
}

// servicesAlone holds what else an entity that names a service may say.
func (c ruleCheck) servicesAlone(at *field.Path, e *EntityRule) {
	s := at.Child("services")
	if e.Services.Name == "" {
		c.required(s.Child("name"), "services must name a service")
	}
	for _, f := range []struct{ name, value string }{{"name", e.Services.Name}, {"namespace", e.Services.Namespace}} {
		if len(f.value) > validation.DNS1123SubdomainMaxLength {
			c.list = append(c.list, field.TooLong(s.Child(f.name), f.value, validation.DNS1123SubdomainMaxLength))
		}
	}
	if c.global && e.Services.Namespace == "" {
		c.required(s.Child("namespace"), "a policy without a namespace must say the service's")
	}
	if len(e.Nets) > 0 || len(e.NotNets) > 0 {
		c.forbidden(s, "cannot be combined with nets or notNets")
	}
	if e.Selector != "" || e.NotSelector != "" {
		c.forbidden(s, "cannot be combined with selector or notSelector")
	}
	if e.NamespaceSelector != "" {
		c.forbidden(s, "cannot be combined with namespaceSelector")
	}
	if e.ServiceAccounts != nil {
		c.forbidden(s, "cannot be combined with serviceAccounts")
	}
}

// services holds where services may stand: a source of ingress, a destination of egress,
// and there without ports, for the service has its own.
func (c ruleCheck) services(at *field.Path, r *Rule) {
	src, dst := at.Child("source", "services"), at.Child("destination", "services")
	if c.direction == Ingress {
		if r.Destination.Services != nil {
			c.forbidden(dst, "in an ingress rule services can only be the source")
		}
		return
	}
	if r.Source.Services != nil {
		c.forbidden(src, "in an egress rule services can only be the destination")
	}
	if r.Destination.Services != nil && len(r.Destination.Ports)+len(r.Destination.NotPorts) > 0 {
		c.forbidden(dst, "cannot be combined with ports: the service has its own")
	}
}

func (c ruleCheck) http(at *field.Path, r *Rule) {
	at = at.Child("http")
	if c.direction == Egress {
		c.forbidden(at, "HTTP rules can only be ingress rules")
	}
	if r.Action != Allow {
		c.forbidden(at, "HTTP rules must have action Allow")
	}
	if n, _ := r.protocolNumber(); n != 0 && n != 6 {
		c.forbidden(at, "HTTP rules must have protocol TCP or none")
	}
	tooMany(c.problems, at.Child("methods"), r.HTTP.Methods, maxHTTP)
	seen := map[string]bool{}
	for i, m := range r.HTTP.Methods {
		if seen[m] {
			c.list = append(c.list, field.Duplicate(at.Child("methods").Index(i), m))
		}
		seen[m] = true
	}
	tooMany(c.problems, at.Child("paths"), r.HTTP.Paths, maxHTTP)
	for i, path := range r.HTTP.Paths {
		c.httpPath(at.Child("paths").Index(i), path)
	}
}

func (c ruleCheck) httpPath(at *field.Path, path HTTPPath) {
	if (path.Exact == "") == (path.Prefix == "") {
		c.invalid(at, path.Exact+path.Prefix, "must have exactly one of exact and prefix")
	}
	if s := path.Exact + path.Prefix; strings.ContainsAny(s, "?#") || len(s) > maxHTTPPath {
		c.invalid(at, s, "must have no '?' and no '#', and at most %d characters", maxHTTPPath)
	}
}

func (r *Rule) protocolNumber() (uint8, bool) {
	if r.Protocol == nil {
		return 0, false
	}
	return r.Protocol.Number()
}
