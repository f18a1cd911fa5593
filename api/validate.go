package api

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/calicogo/calico/selector"
)

// problems gathers what is wrong with one object.
type problems struct {
	list      field.ErrorList
	unlimited bool // lists and selectors may be of any length
}

func (p *problems) invalid(at *field.Path, value any, format string, args ...any) {
	p.list = append(p.list, field.Invalid(at, value, fmt.Sprintf(format, args...)))
}

func (p *problems) required(at *field.Path, want string) {
	p.list = append(p.list, field.Required(at, want))
}

func (p *problems) forbidden(at *field.Path, why string) {
	p.list = append(p.list, field.Forbidden(at, why))
}

// err is nil if there are no problems.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil // not a nil aggregate in an error
	}
	return p.list.ToAggregate()
}

var (
	specPath = field.NewPath("spec")
	metaPath = field.NewPath("metadata")
)

// A nameRule says what is wrong with a name; see [validation.IsDNS1123Subdomain].
type nameRule func(string) []string

// meta checks the metadata of an object of kind k.
func (p *problems) meta(k *Kind, m *Meta, valid nameRule) {
	if m.Kind != k.Name || m.APIVersion != k.APIVersion() {
		p.invalid(field.NewPath("kind"), m.APIVersion+" "+m.Kind, "must be %s %s", k.APIVersion(), k.Name)
	}
	if m.Name == "" {
		p.required(metaPath.Child("name"), "every object has a name")
	} else {
		p.each(metaPath.Child("name"), m.Name, valid(m.Name))
	}
	at := metaPath.Child("namespace")
	switch {
	case k.Namespaced && m.Namespace == "":
		p.required(at, "a "+k.Name+" belongs to a namespace")
	case k.Namespaced:
		p.each(at, m.Namespace, validation.IsDNS1123Label(m.Namespace))
	case m.Namespace != "":
		p.forbidden(at, "a "+k.Name+" belongs to no namespace")
	}
	p.labels(metaPath.Child("labels"), m.Labels)
}

func (p *problems) each(at *field.Path, value any, msgs []string) {
	for _, m := range msgs {
		p.invalid(at, value, "%s", m)
	}
}

// anyName is the rule for objects that Calico names itself.
func anyName(s string) []string {
	if strings.ContainsAny(s, "/%\x00") || s == "." || s == ".." {
		return []string{"must not contain '/' or '%'"}
	}
	return nil
}

// onlyName is the rule for kinds of which there is one object.
func onlyName(want string) nameRule {
	return func(s string) []string {
		if s != want {
			return []string{fmt.Sprintf("must be %q: there is one object of this kind", want)}
		}
		return nil
	}
}

func (p *problems) labels(at *field.Path, labels map[string]string) {
	for _, k := range sortedKeys(labels) {
		p.each(at, k, validation.IsQualifiedName(k))
		p.each(at.Key(k), labels[k], validation.IsValidLabelValue(labels[k]))
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// oneOf checks an enumeration; empty is allowed.
func oneOf[T ~string](p *problems, at *field.Path, v T, allowed ...T) {
	if v != "" && !slices.Contains(allowed, v) {
		p.list = append(p.list, field.NotSupported(at, v, allowed))
	}
}

func (p *problems) between(at *field.Path, v, lo, hi int) {
	if v < lo || v > hi {
		p.invalid(at, v, "must be from %d to %d", lo, hi)
	}
}

func tooMany[T any](p *problems, at *field.Path, list []T, most int) {
	if len(list) > most && !p.unlimited {
		p.list = append(p.list, field.TooMany(at, len(list), most))
	}
}

// prefix checks a CIDR and returns it with its host bits cleared.
func (p *problems) prefix(at *field.Path, s string) (netip.Prefix, bool) {
	c, err := netip.ParsePrefix(s)
	if err != nil || c.Addr().Is4In6() {
		p.invalid(at, s, "must be a CIDR such as 10.0.0.0/16 or fd00::/64")
		return c, false
	}
	return c.Masked(), true
}

// network checks a CIDR whose host bits are zero.
func (p *problems) network(at *field.Path, s string) (netip.Prefix, bool) {
	c, ok := p.prefix(at, s)
	if ok && c.String() != s {
		p.invalid(at, s, "must be written %s: host bits are zero, addresses in canonical form", c)
		return c, false
	}
	return c, ok
}

// ip checks an address of a family: 4, 6, or 0 for both. Empty is allowed.
func (p *problems) ip(at *field.Path, s string, family int) {
	if s == "" {
		return
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil || a.Zone() != "" || a.Is4In6():
		p.invalid(at, s, "must be an IP address")
	case family == 4 && !a.Is4():
		p.invalid(at, s, "must be an IPv4 address")
	case family == 6 && !a.Is6():
		p.invalid(at, s, "must be an IPv6 address")
	}
}

// ParseNet parses what a rule's nets may hold: a CIDR, or an address, which is a network
// of one. Host bits are cleared. An IPv4 address in IPv6's clothes (::ffff:1.2.3.4) is
// refused, for no packet bears one.
func ParseNet(s string) (netip.Prefix, error) {
	c, err := netip.ParsePrefix(s)
	if !strings.Contains(s, "/") {
		var a netip.Addr
		a, err = netip.ParseAddr(s)
		c = netip.PrefixFrom(a, a.BitLen())
	}
	if err != nil || strings.Contains(s, "%") || c.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q: want an IP address or a CIDR", s)
	}
	return c.Masked(), nil
}

// net checks an address or CIDR of a family (0: both).
func (p *problems) net(at *field.Path, s string, family int) (netip.Prefix, bool) {
	c, err := ParseNet(s)
	switch {
	case err != nil:
		p.invalid(at, s, "must be an IP address or a CIDR")
		return c, false
	case family == 4 && !c.Addr().Is4(), family == 6 && !c.Addr().Is6():
		p.invalid(at, s, "must be IPv%d", family)
	}
	return c, true
}

var interfaceName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,15}$`)

func (p *problems) iface(at *field.Path, s string) {
	if s != "" && !interfaceName.MatchString(s) {
		p.invalid(at, s, "must be the name of a network interface: 1 to 15 letters, digits, '_', '.' or '-'")
	}
}

var macAddress = regexp.MustCompile(`^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$`)

func (p *problems) mac(at *field.Path, s string) {
	if s != "" && !macAddress.MatchString(s) {
		p.invalid(at, s, "must be a MAC address such as ee:ee:ee:ee:ee:ee")
	}
}

const maxSelector = 1024

// selector checks a selector; empty is allowed. Only a rule's namespaceSelector may use
// global().
func (p *problems) selector(at *field.Path, s string, global bool) {
	if len(s) > maxSelector && !p.unlimited {
		p.list = append(p.list, field.TooLong(at, s, maxSelector))
		return
	}
	p.anySelector(at, s, global)
}

// anySelector is selector for those that may be of any length.
func (p *problems) anySelector(at *field.Path, s string, global bool) {
	sel, err := selector.Parse(s)
	switch {
	case err != nil:
		p.invalid(at, s, "%v", err)
	case !global && usesGlobal(sel):
		p.invalid(at, s, "global() can only be used in the namespaceSelector of a rule's source or destination")
	}
}

// usesGlobal tells whether s holds global().
func usesGlobal(s *selector.Selector) bool {
	return s.Replace(nil, selector.Has("x")).ID() != s.Replace(nil, selector.Has("y")).ID()
}

// Rendering of values in tables.

const none = "<none>"

func yesNo(b bool) string { return strconv.FormatBool(b) }

func list(s []string) string { return strings.Join(s, ",") }

func number(f *float64) string {
	if f == nil {
		return none
	}
	return strconv.FormatFloat(*f, 'f', -1, 64)
}

// column makes a Column of a kind whose Go type is *T.
func column[T Object](header string, value func(T) string) Column {
	return Column{Header: header, Value: func(o Object) string {
		if t, ok := o.(T); ok {
			return value(t)
		}
		return ""
	}}
}

func wide(c Column) Column { c.Wide = true; return c }

func nameColumn() Column { return column("NAME", Object.GetName) }
