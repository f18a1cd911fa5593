package api

// BlockAffinity is a node's claim on a block of addresses.
type BlockAffinity struct {
	Meta `json:",inline"`
	Spec BlockAffinitySpec `json:"spec"`
}

// BlockAffinitySpec names the block, its owner and the state of the claim.
type BlockAffinitySpec struct {
	State   AffinityState `json:"state"`
	Node    string        `json:"node"`
	Type    string        `json:"type,omitempty"` // host (the default) or virtual
	CIDR    string        `json:"cidr"`
	Deleted bool          `json:"deleted"`
}

// AffinityState is how far a claim has come: pending, then confirmed once the block
// names the node, then pendingDeletion.
type AffinityState string

const (
	AffinityPending         AffinityState = "pending"
	AffinityConfirmed       AffinityState = "confirmed"
	AffinityPendingDeletion AffinityState = "pendingDeletion"
)

// KindBlockAffinity describes BlockAffinity.
var KindBlockAffinity = register(&Kind{
	Name:     "BlockAffinity",
	Plural:   "blockaffinities",
	Short:    []string{"affinity", "affinities"},
	Internal: true,
	New:      func() Object { return &BlockAffinity{Meta: typed("BlockAffinity")} },
	Columns: []Column{
		nameColumn(),
		column("CIDR", func(o *BlockAffinity) string { return o.Spec.CIDR }),
		column("NODE", func(o *BlockAffinity) string { return o.Spec.Node }),
		column("STATE", func(o *BlockAffinity) string { return string(o.Spec.State) }),
	},
})

// Default fills in what the user left out.
func (o *BlockAffinity) Default() {}

// Validate says what is wrong with o.
func (o *BlockAffinity) Validate() error {
	p := &problems{}
	p.meta(KindBlockAffinity, &o.Meta, anyName)
	p.network(specPath.Child("cidr"), o.Spec.CIDR)
	if o.Spec.Node == "" {
		p.required(specPath.Child("node"), "the node whose claim this is")
	}
	oneOf(p, specPath.Child("state"), o.Spec.State, AffinityPending, AffinityConfirmed, AffinityPendingDeletion)
	oneOf(p, specPath.Child("type"), o.Spec.Type, "host", "virtual")
	return p.err()
}
