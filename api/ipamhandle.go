package api

// IPAMHandle lists the blocks in which one owner, named by the handle, has addresses.
type IPAMHandle struct {
	Meta `json:",inline"`
	Spec IPAMHandleSpec `json:"spec"`
}

// IPAMHandleSpec counts the addresses per block.
type IPAMHandleSpec struct {
	HandleID string         `json:"handleID"`
	Block    map[string]int `json:"block"` // by block CIDR
	Deleted  bool           `json:"deleted,omitempty"`
}

// KindIPAMHandle describes IPAMHandle.
var KindIPAMHandle = register(&Kind{
	Name:     "IPAMHandle",
	Plural:   "ipamhandles",
	Internal: true,
	New:      func() Object { return &IPAMHandle{Meta: typed("IPAMHandle")} },
	Columns: []Column{
		nameColumn(),
	},
})

// Default fills in what the user left out.
func (o *IPAMHandle) Default() {}

// Validate says what is wrong with o.
func (o *IPAMHandle) Validate() error {
	p := &problems{}
	p.meta(KindIPAMHandle, &o.Meta, anyName)
	at := specPath.Child("block")
	for _, cidr := range sortedKeys(o.Spec.Block) {
		p.network(at.Key(cidr), cidr)
		if n := o.Spec.Block[cidr]; n < 0 {
			p.invalid(at.Key(cidr), n, "must not be negative")
		}
	}
	return p.err()
}
