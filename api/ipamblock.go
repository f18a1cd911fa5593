package api

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
})

// Default fills in what the user left out.
func (o *IPAMBlock) Default() {}

// Validate says what is wrong with o.
func (o *IPAMBlock) Validate() error { return nil }
