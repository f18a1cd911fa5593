package api

import (
	"net/netip"
	"regexp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// IPAMBlock is a block of addresses and who holds each.
type IPAMBlock struct {
	Meta `json:",inline"`
	Spec IPAMBlockSpec `json:"spec"`
}

// IPAMBlockSpec counts addresses by ordinal: the distance from the block's first.
type IPAMBlockSpec struct {
	CIDR                        string            `json:"cidr"`
	Affinity                    *string           `json:"affinity,omitempty"` // "host:NAME" or "virtual:NAME"
	AffinityClaimTime           *metav1.Time      `json:"affinityClaimTime,omitempty"`
	StrictAffinity              bool              `json:"strictAffinity"`
	Allocations                 []*int            `json:"allocations"` // by ordinal: index into Attributes, nil if free
	Unallocated                 []int             `json:"unallocated"` // free ordinals, next first
	Attributes                  []AllocAttributes `json:"attributes"`
	SequenceNumber              uint64            `json:"sequenceNumber,omitempty"`
	SequenceNumberForAllocation map[string]uint64 `json:"sequenceNumberForAllocation,omitempty"` // by ordinal
	Deleted                     bool              `json:"deleted,omitempty"`
}

// AllocAttributes says who holds an address. An entry with ReleasedAt is an address that
// rests before it is given out again.
type AllocAttributes struct {
	HandleID            *string           `json:"handle_id,omitempty"`
	Secondary           map[string]string `json:"secondary,omitempty"` // node, namespace, pod, type
	AlternateOwnerAttrs map[string]string `json:"alternateOwnerAttrs,omitempty"`
	ReleasedAt          *metav1.Time      `json:"releasedAt,omitempty"`
}

// Keys of AllocAttributes.Secondary.
const (
	AttrNode      = "node"
	AttrNamespace = "namespace"
	AttrPod       = "pod"
	AttrType      = "type"
)

// KindIPAMBlock describes IPAMBlock.
var KindIPAMBlock = register(&Kind{
	Name:     "IPAMBlock",
	Plural:   "ipamblocks",
	Internal: true,
	New:      func() Object { return &IPAMBlock{Meta: typed("IPAMBlock")} },
	Columns: []Column{
		nameColumn(),
		column("CIDR", func(o *IPAMBlock) string { return o.Spec.CIDR }),
		column("AFFINITY", func(o *IPAMBlock) string { return o.affinity() }),
	},
})

// Default fills in what the user left out.
func (o *IPAMBlock) Default() {}

// Validate says what is wrong with o.
func (o *IPAMBlock) Validate() error {
	p := &problems{}
	p.meta(KindIPAMBlock, &o.Meta, anyName)
	if a := o.Spec.Affinity; a != nil && !affinityForm.MatchString(*a) {
		p.invalid(specPath.Child("affinity"), *a, "must be host:NAME or virtual:NAME")
	}
	if c, ok := p.network(specPath.Child("cidr"), o.Spec.CIDR); ok {
		o.Spec.checkOrdinals(p, c)
	}
	return p.err()
}

var affinityForm = regexp.MustCompile(`^(host|virtual):[a-zA-Z0-9._-]+$`)

// checkOrdinals checks that every ordinal and index points at something.
func (s *IPAMBlockSpec) checkOrdinals(p *problems, c netip.Prefix) {
	if n := c.Addr().BitLen() - c.Bits(); n > 16 || len(s.Allocations) != 1<<n {
		p.invalid(specPath.Child("allocations"), len(s.Allocations), "must have an entry for each address of %s", c)
	}
	for i, a := range s.Allocations {
		if a != nil && (*a < 0 || *a >= len(s.Attributes)) {
			p.invalid(specPath.Child("allocations").Index(i), *a, "must be an index into attributes")
		}
	}
	for i, n := range s.Unallocated {
		if n < 0 || n >= len(s.Allocations) {
			p.invalid(specPath.Child("unallocated").Index(i), n, "must be an index into allocations")
		}
	}
}

func (o *IPAMBlock) affinity() string {
	if o.Spec.Affinity == nil {
		return none
	}
	return *o.Spec.Affinity
}
