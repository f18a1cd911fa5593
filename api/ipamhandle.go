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
})

// Default fills in what the user left out.
func (o *IPAMHandle) Default() {}

// Validate says what is wrong with o.
func (o *IPAMHandle) Validate() error { return nil }
