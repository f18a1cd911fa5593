package api

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
)

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
	Columns: []Column{
		nameColumn(),
		column("CIDR", func(o *IPPool) string { return o.Spec.CIDR }),
		wide(column("NAT", func(o *IPPool) string { return yesNo(o.Spec.NATOutgoing) })),
		wide(column("IPIPMODE", func(o *IPPool) string { return string(o.Spec.IPIPMode) })),
		wide(column("VXLANMODE", func(o *IPPool) string { return string(o.Spec.VXLANMode) })),
		wide(column("DISABLED", func(o *IPPool) string { return yesNo(o.Spec.Disabled) })),
		wide(column("DISABLEBGPEXPORT", func(o *IPPool) string { return yesNo(o.Spec.DisableBGPExport) })),
		column("SELECTOR", func(o *IPPool) string { return o.Spec.NodeSelector }),
		wide(column("ASSIGNMENTMODE", func(o *IPPool) string { return string(o.Spec.AssignmentMode) })),
	},
})

// Default fills in what the user left out.
func (o *IPPool) Default() {
	s := &o.Spec
	s.IPIPMode = cmp.Or(s.IPIPMode, EncapNever)
	s.VXLANMode = cmp.Or(s.VXLANMode, EncapNever)
	s.NodeSelector = cmp.Or(s.NodeSelector, "all()")
	s.AssignmentMode = cmp.Or(s.AssignmentMode, AssignAutomatic)
	if len(s.AllowedUses) == 0 {
		s.AllowedUses = []IPPoolUse{UseWorkload}
		if s.NamespaceSelector == "" { // a tunnel's address has no namespace to select by
			s.AllowedUses = append(s.AllowedUses, UseTunnel)
		}
	}
	c, err := netip.ParsePrefix(s.CIDR)
	if err != nil {
		return
	}
	if c == c.Masked() {
		s.CIDR = c.String() // 2001:db8::/32 for 2001:0DB8::/32
	}
	s.BlockSize = cmp.Or(s.BlockSize, map[int]int{32: 26, 128: 122}[c.Addr().BitLen()])
}

// Validate says what is wrong with o.
func (o *IPPool) Validate() error {
	p := &problems{}
	p.meta(KindIPPool, &o.Meta, validation.IsDNS1123Subdomain)
	o.Spec.checkCIDR(p)
	o.Spec.checkEncap(p)
	o.Spec.checkUses(p)
	p.selector(specPath.Child("nodeSelector"), o.Spec.NodeSelector, false)
	p.selector(specPath.Child("namespaceSelector"), o.Spec.NamespaceSelector, false)
	oneOf(p, specPath.Child("assignmentMode"), o.Spec.AssignmentMode, AssignAutomatic, AssignManual)
	return p.err()
}

var linkLocal = []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10")}

func (s *IPPoolSpec) checkCIDR(p *problems) {
	at := specPath.Child("cidr")
	if s.CIDR == "" {
		p.required(at, "the addresses of the pool, such as 10.10.0.0/16")
		return
	}
	c, ok := p.network(at, s.CIDR)
	if !ok {
		return
	}
	for _, l := range linkLocal {
		if c.Overlaps(l) {
			p.invalid(at, s.CIDR, "overlaps the link-local range %s", l)
		}
	}
	lo, hi := 20, 32
	if c.Addr().Is6() {
		lo, hi = 116, 128
	}
	at = specPath.Child("blockSize")
	switch {
	case s.BlockSize < lo || s.BlockSize > hi:
		p.invalid(at, s.BlockSize, "is the prefix length of a block and must be from %d to %d for IPv%d", lo, hi, 4+2*(lo/100))
	case c.Bits() > s.BlockSize && !s.Disabled: // a disabled one may but name addresses
		p.invalid(specPath.Child("cidr"), s.CIDR, "is smaller than one block: blockSize is /%d", s.BlockSize)
	}
}

func (s *IPPoolSpec) checkEncap(p *problems) {
	ipip, vxlan := specPath.Child("ipipMode"), specPath.Child("vxlanMode")
	oneOf(p, ipip, s.IPIPMode, EncapNever, EncapAlways, EncapCrossSubnet)
	oneOf(p, vxlan, s.VXLANMode, EncapNever, EncapAlways, EncapCrossSubnet)
	if s.ipip() && s.vxlan() {
		p.forbidden(ipip, "ipipMode and vxlanMode cannot both be enabled")
	}
	if c, err := netip.ParsePrefix(s.CIDR); err == nil && c.Addr().Is6() && s.ipip() {
		p.forbidden(ipip, "IPIP is not supported on IPv6 pools")
	}
}

func (s *IPPoolSpec) ipip() bool  { return s.IPIPMode != "" && s.IPIPMode != EncapNever }
func (s *IPPoolSpec) vxlan() bool { return s.VXLANMode != "" && s.VXLANMode != EncapNever }

func (s *IPPoolSpec) checkUses(p *problems) {
	at := specPath.Child("allowedUses")
	tooMany(p, at, s.AllowedUses, 10)
	for i, u := range s.AllowedUses {
		if u == "" {
			p.required(at.Index(i), "one of Workload, Tunnel, LoadBalancer")
		}
		oneOf(p, at.Index(i), u, UseWorkload, UseTunnel, UseLoadBalancer)
	}
	tunnel := slices.Contains(s.AllowedUses, UseTunnel)
	if tunnel && s.NamespaceSelector != "" {
		p.forbidden(specPath.Child("namespaceSelector"), "a pool with allowedUses Tunnel cannot have one")
	}
	if !slices.Contains(s.AllowedUses, UseLoadBalancer) {
		return
	}
	if tunnel || slices.Contains(s.AllowedUses, UseWorkload) {
		p.forbidden(at, "LoadBalancer cannot be combined with Workload or Tunnel")
	}
	if s.ipip() || s.vxlan() {
		p.forbidden(at, "a LoadBalancer pool cannot have ipipMode or vxlanMode")
	}
	if s.DisableBGPExport {
		p.forbidden(specPath.Child("disableBGPExport"), "a LoadBalancer pool cannot disable BGP export")
	}
	if s.NodeSelector != "" && s.NodeSelector != "all()" {
		p.invalid(specPath.Child("nodeSelector"), s.NodeSelector, "a LoadBalancer pool must have all()")
	}
}

// OverlappingPools returns an error that names two pools which share addresses, if there
// are any. Pools whose CIDR does not parse are left out.
func OverlappingPools(pools []*IPPool) error {
	type pool struct {
		cidr netip.Prefix
		name string
	}
	var all []pool
	for _, o := range pools {
		if c, err := netip.ParsePrefix(o.Spec.CIDR); err == nil {
			all = append(all, pool{c.Masked(), o.Name})
		}
	}
	slices.SortFunc(all, func(a, b pool) int {
		return cmp.Or(a.cidr.Addr().Compare(b.cidr.Addr()), a.cidr.Bits()-b.cidr.Bits(), cmp.Compare(a.name, b.name))
	})
	for i := 1; i < len(all); i++ {
		if a, b := all[i-1], all[i]; a.cidr.Overlaps(b.cidr) { // prefixes are nested or disjoint
			return fmt.Errorf("IPPool %s (%s) overlaps IPPool %s (%s): pools must not share addresses", b.name, b.cidr, a.name, a.cidr)
		}
	}
	return nil
}
