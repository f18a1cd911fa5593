package api

// IPPool is a range of addresses that pods, and the tunnel devices of nodes, get theirs
// from, and how packets between its addresses travel from node to node.
type IPPool struct {
	Meta   `json:",inline"`
	Spec   IPPoolSpec    `json:"spec"`
	Status *IPPoolStatus `json:"status,omitempty"`
}

// IPPoolSpec is what the user asks of a pool.
type IPPoolSpec struct {
	CIDR              string         `json:"cidr"`
	VXLANMode         EncapMode      `json:"vxlanMode,omitempty"`
	IPIPMode          EncapMode      `json:"ipipMode,omitempty"`
	NATOutgoing       bool           `json:"natOutgoing,omitempty"`
	Disabled          bool           `json:"disabled,omitempty"`
	DisableBGPExport  bool           `json:"disableBGPExport,omitempty"`
	BlockSize         int            `json:"blockSize,omitempty"` // prefix length, default 26 and 122
	NodeSelector      string         `json:"nodeSelector,omitempty"`
	NamespaceSelector string         `json:"namespaceSelector,omitempty"`
	AllowedUses       []IPPoolUse    `json:"allowedUses,omitempty"`
	AssignmentMode    AssignmentMode `json:"assignmentMode,omitempty"`
}

// EncapMode says when packets between two nodes are encapsulated.
type EncapMode string

const (
	EncapNever       EncapMode = "Never"
	EncapAlways      EncapMode = "Always"
	EncapCrossSubnet EncapMode = "CrossSubnet" // only between nodes of different subnets
)

// IPPoolUse is a purpose for which addresses may be taken from a pool.
type IPPoolUse string

const (
	UseWorkload     IPPoolUse = "Workload"
	UseTunnel       IPPoolUse = "Tunnel"
	UseLoadBalancer IPPoolUse = "LoadBalancer"
)

// AssignmentMode says whether a pool is used unless it is named.
type AssignmentMode string

const (
	AssignAutomatic AssignmentMode = "Automatic"
	AssignManual    AssignmentMode = "Manual"
)

// IPPoolStatus is what Calico observes of a pool.
type IPPoolStatus struct {
	Conditions []Condition `json:"conditions,omitempty"`
}

// KindIPPool describes IPPool.
var KindIPPool = register(&Kind{
	Name:   "IPPool",
	Plural: "ippools",
	Short:  []string{"ippool", "pool", "pools"},
	New:    func() Object { return &IPPool{Meta: typed("IPPool")} },
})

// Default fills in what the user left out.
func (o *IPPool) Default() {}

// Validate says what is wrong with o.
func (o *IPPool) Validate() error { return nil }
