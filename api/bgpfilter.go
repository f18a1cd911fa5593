package api

import (
	"fmt"
	"regexp"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// BGPFilter says which routes nodes tell a peer and take from it. Rules are looked at in order, and the
// first that matches decides; where none does the route is treated as without a filter.
type BGPFilter struct {
	Meta `json:",inline"`
	Spec BGPFilterSpec `json:"spec,omitzero"`
}

// BGPFilterSpec holds the rules.
type BGPFilterSpec struct {
	ExportV4 []BGPFilterRule `json:"exportV4,omitempty"`
	ImportV4 []BGPFilterRule `json:"importV4,omitempty"`
	ExportV6 []BGPFilterRule `json:"exportV6,omitempty"`
	ImportV6 []BGPFilterRule `json:"importV6,omitempty"`
}

// BGPFilterRule matches a route that meets all its conditions.
type BGPFilterRule struct {
	CIDR          string               `json:"cidr,omitempty"`
	PrefixLength  *BGPFilterLength     `json:"prefixLength,omitempty"`
	MatchOperator string               `json:"matchOperator,omitempty"` // how the route's prefix is to CIDR
	Source        string               `json:"source,omitempty"`
	Interface     string               `json:"interface,omitempty"`
	PeerType      string               `json:"peerType,omitempty"`
	Communities   *BGPFilterCommunity  `json:"communities,omitempty"`
	ASPathPrefix  []ASNumber           `json:"asPathPrefix,omitempty"`
	Priority      *int                 `json:"priority,omitempty"`
	Action        string               `json:"action"` // Accept or Reject
	Operations    []BGPFilterOperation `json:"operations,omitempty"`
}

// BGPFilterLength is a range of prefix lengths; that of the CIDR, or the family's, where an end is nil.
type BGPFilterLength struct {
	Min *int32 `json:"min,omitempty"`
	Max *int32 `json:"max,omitempty"`
}

// BGPFilterCommunity is met by routes that have the one value.
type BGPFilterCommunity struct {
	Values []string `json:"values"`
}

// BGPFilterOperation is one change of a route that is accepted: one of its fields is set.
type BGPFilterOperation struct {
	AddCommunity  *BGPFilterAddCommunity  `json:"addCommunity,omitempty"`
	PrependASPath *BGPFilterPrependASPath `json:"prependASPath,omitempty"`
	SetPriority   *BGPFilterSetPriority   `json:"setPriority,omitempty"`
}

// BGPFilterAddCommunity adds a community, aa:nn or aa:nn:mm.
type BGPFilterAddCommunity struct {
	Value string `json:"value"`
}

// BGPFilterPrependASPath puts AS numbers before the path's, in this order.
type BGPFilterPrependASPath struct {
	Prefix []ASNumber `json:"prefix"`
}

// BGPFilterSetPriority sets the metric with which the route stands in the kernel.
type BGPFilterSetPriority struct {
	Value int `json:"value"`
}

// KindBGPFilter describes BGPFilter.
var KindBGPFilter = register(&Kind{
	Name:   "BGPFilter",
	Plural: "bgpfilters",
	New:    func() Object { return &BGPFilter{Meta: typed("BGPFilter")} },
	Columns: []Column{
		nameColumn(),
		column("NUMEXPORTV4", func(o *BGPFilter) string { return strconv.Itoa(len(o.Spec.ExportV4)) }),
		column("NUMIMPORTV4", func(o *BGPFilter) string { return strconv.Itoa(len(o.Spec.ImportV4)) }),
		column("NUMEXPORTV6", func(o *BGPFilter) string { return strconv.Itoa(len(o.Spec.ExportV6)) }),
		column("NUMIMPORTV6", func(o *BGPFilter) string { return strconv.Itoa(len(o.Spec.ImportV6)) }),
	},
})

// Default fills in what the user left out.
func (o *BGPFilter) Default() {}

// Validate says what is wrong with o.
func (o *BGPFilter) Validate() error {
	p := &problems{}
	p.meta(KindBGPFilter, &o.Meta, validation.IsDNS1123Subdomain)
	for _, l := range []struct {
		name   string
		rules  []BGPFilterRule
		family int
	}{
		{"exportV4", o.Spec.ExportV4, 4}, {"importV4", o.Spec.ImportV4, 4}, {"exportV6", o.Spec.ExportV6, 6}, {"importV6", o.Spec.ImportV6, 6},
	} {
		for i := range l.rules {
			l.rules[i].check(p, specPath.Child(l.name).Index(i), l.family)
		}
	}
	return p.err()
}

var filterInterface = regexp.MustCompile(`^[a-zA-Z0-9_.*-]{1,15}$`)

func (r *BGPFilterRule) check(p *problems, at *field.Path, family int) {
	if r.Action == "" {
		p.required(at.Child("action"), "Accept or Reject")
	}
	oneOf(p, at.Child("action"), r.Action, "Accept", "Reject")
	oneOf(p, at.Child("source"), r.Source, "RemotePeers")
	oneOf(p, at.Child("peerType"), r.PeerType, "eBGP", "iBGP")
	if r.Interface != "" && !filterInterface.MatchString(r.Interface) {
		p.invalid(at.Child("interface"), r.Interface, "must be the name of a network interface, in which * stands for any letters")
	}
	r.checkPrefix(p, at, family)
	if c := r.Communities; c != nil {
		if len(c.Values) != 1 {
			p.invalid(at.Child("communities", "values"), len(c.Values), "must hold one community")
		}
		for i, v := range c.Values {
			p.community(at.Child("communities", "values").Index(i), v)
		}
	}
	p.routePriority(at.Child("priority"), r.Priority)
	if len(r.Operations) > 0 && r.Action == "Reject" {
		p.forbidden(at.Child("operations"), "a route that is rejected cannot be changed")
	}
	tooMany(p, at.Child("operations"), r.Operations, maxOperations)
	for i := range r.Operations {
		r.Operations[i].check(p, at.Child("operations").Index(i))
	}
}

const (
	maxOperations = 10
	maxPrepended  = 10
)

// checkPrefix looks at what a rule says of the route's destination.
func (r *BGPFilterRule) checkPrefix(p *problems, at *field.Path, family int) {
	oneOf(p, at.Child("matchOperator"), r.MatchOperator, "Equal", "NotEqual", "In", "NotIn")
	if (r.CIDR == "") != (r.MatchOperator == "") {
		p.required(at.Child(map[bool]string{true: "cidr", false: "matchOperator"}[r.CIDR == ""]), "cidr and matchOperator stand together")
	}
	if r.CIDR != "" {
		c, ok := p.prefix(at.Child("cidr"), r.CIDR)
		if ok && c.Addr().Is4() != (family == 4) {
			p.invalid(at.Child("cidr"), r.CIDR, "must be IPv%d", family)
		}
	}
	l := r.PrefixLength
	if l == nil {
		return
	}
	if r.CIDR == "" {
		p.required(at.Child("cidr"), "when prefixLength is set")
	}
	most := map[int]int{4: 32, 6: 128}[family]
	if l.Min != nil {
		p.between(at.Child("prefixLength", "min"), int(*l.Min), 0, most)
	}
	if l.Max != nil {
		p.between(at.Child("prefixLength", "max"), int(*l.Max), 0, most)
	}
	if l.Min != nil && l.Max != nil && *l.Min > *l.Max {
		p.invalid(at.Child("prefixLength"), fmt.Sprintf("%d to %d", *l.Min, *l.Max), "the range ends before it begins")
	}
}

func (p *problems) community(at *field.Path, v string) {
	if !isCommunity(v) {
		p.invalid(at, v, "must be aa:nn, or aa:nn:mm for a large community")
	}
}

func (o *BGPFilterOperation) check(p *problems, at *field.Path) {
	set := 0
	if o.AddCommunity != nil {
		set++
		p.community(at.Child("addCommunity", "value"), o.AddCommunity.Value)
	}
	if o.PrependASPath != nil {
		set++
		at := at.Child("prependASPath", "prefix")
		if len(o.PrependASPath.Prefix) == 0 {
			p.required(at, "at least one AS number")
		}
		tooMany(p, at, o.PrependASPath.Prefix, maxPrepended)
	}
	if o.SetPriority != nil {
		set++
		p.routePriority(at.Child("setPriority", "value"), &o.SetPriority.Value)
	}
	if set != 1 {
		p.invalid(at, set, "must be one of addCommunity, prependASPath and setPriority")
	}
}
