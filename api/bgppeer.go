package api

import (
	"cmp"
	"errors"
	"net/netip"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// BGPPeer has nodes speak BGP with somebody: with one address (peerIP), with other nodes (peerSelector), or
// with their own pods (localWorkloadSelector).
type BGPPeer struct {
	Meta `json:",inline"`
	Spec BGPPeerSpec `json:"spec,omitzero"`
}

// BGPPeerSpec says which nodes (Node or NodeSelector; neither: all), with whom, and how.
type BGPPeerSpec struct {
	Node                     string    `json:"node,omitempty"`
	NodeSelector             string    `json:"nodeSelector,omitempty"`
	PeerIP                   string    `json:"peerIP,omitempty"` // an address, with or without a port: see Peer
	ASNumber                 *ASNumber `json:"asNumber,omitempty"`
	LocalASNumber            *ASNumber `json:"localASNumber,omitempty"`
	PeerSelector             string    `json:"peerSelector,omitempty"`
	LocalWorkloadSelector    string    `json:"localWorkloadSelector,omitempty"`
	KeepOriginalNextHop      bool      `json:"keepOriginalNextHop,omitempty"` // old for NextHopMode Keep
	NextHopMode              string    `json:"nextHopMode,omitempty"`
	Password                 *Password `json:"password,omitempty"`
	SourceAddress            string    `json:"sourceAddress,omitempty"`
	MaxRestartTime           *Duration `json:"maxRestartTime,omitempty"`
	KeepaliveTime            *Duration `json:"keepaliveTime,omitempty"`
	NumAllowedLocalASNumbers *int32    `json:"numAllowedLocalASNumbers,omitempty"`
	TTLSecurity              *uint8    `json:"ttlSecurity,omitempty"` // hops
	ReachableBy              string    `json:"reachableBy,omitempty"` // the gateway to PeerIP
	Filters                  []string  `json:"filters,omitempty"`     // names of BGPFilters, in order
	ReversePeering           string    `json:"reversePeering,omitempty"`
}

// KindBGPPeer describes BGPPeer.
var KindBGPPeer = register(&Kind{
	Name:   "BGPPeer",
	Plural: "bgppeers",
	New:    func() Object { return &BGPPeer{Meta: typed("BGPPeer")} },
	Columns: []Column{
		nameColumn(),
		column("PEERIP", func(o *BGPPeer) string {
			return cmp.Or(o.Spec.PeerIP, o.Spec.PeerSelector, o.Spec.LocalWorkloadSelector)
		}),
		column("NODE", func(o *BGPPeer) string { return cmp.Or(o.Spec.Node, o.Spec.NodeSelector, "(global)") }),
		column("ASN", func(o *BGPPeer) string {
			if o.Spec.ASNumber == nil {
				return none
			}
			return o.Spec.ASNumber.String()
		}),
	},
})

// Peer returns the address that PeerIP names, and its port: 0 if it names none, which means that of BGP.
// An IPv6 address with a port is in brackets.
func (s *BGPPeerSpec) Peer() (netip.AddrPort, error) {
	a, err := netip.ParseAddr(s.PeerIP)
	if err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	p, err := netip.ParseAddrPort(s.PeerIP)
	if err == nil && p.Port() == 0 {
		err = errPortZero
	}
	return p, err
}

var errPortZero = errors.New("port 0")

// Default fills in what the user left out.
func (o *BGPPeer) Default() {}

// Validate says what is wrong with o.
func (o *BGPPeer) Validate() error {
	p := &problems{}
	p.meta(KindBGPPeer, &o.Meta, validation.IsDNS1123Subdomain)
	s := &o.Spec
	if s.Node != "" {
		p.each(specPath.Child("node"), s.Node, validation.IsDNS1123Subdomain(s.Node))
	}
	p.selector(specPath.Child("nodeSelector"), s.NodeSelector, false)
	p.selector(specPath.Child("peerSelector"), s.PeerSelector, false)
	p.selector(specPath.Child("localWorkloadSelector"), s.LocalWorkloadSelector, false)
	oneOf(p, specPath.Child("nextHopMode"), s.NextHopMode, "Auto", "Self", "Keep")
	oneOf(p, specPath.Child("sourceAddress"), s.SourceAddress, "UseNodeIP", "None")
	oneOf(p, specPath.Child("reversePeering"), s.ReversePeering, "Auto", "Manual")
	p.password(specPath.Child("password"), s.Password)
	p.positive(specPath.Child("maxRestartTime"), s.MaxRestartTime)
	p.positive(specPath.Child("keepaliveTime"), s.KeepaliveTime)
	if n := s.NumAllowedLocalASNumbers; n != nil && *n < 0 {
		p.invalid(specPath.Child("numAllowedLocalASNumbers"), *n, "must not be negative")
	}
	for i, f := range s.Filters {
		p.each(specPath.Child("filters").Index(i), f, validation.IsDNS1123Subdomain(f))
	}
	s.checkAddresses(p)
	s.checkTogether(p)
	return p.err()
}

func (s *BGPPeerSpec) checkAddresses(p *problems) {
	peer, err := s.Peer()
	at := specPath.Child("peerIP")
	if s.PeerIP != "" && (err != nil || peer.Addr().Is4In6()) {
		p.invalid(at, s.PeerIP, "must be an IP address, or one with a port: 10.0.0.1:179 or [fd00::1]:179")
	}
	p.ip(specPath.Child("reachableBy"), s.ReachableBy, 0)
	by, byErr := netip.ParseAddr(s.ReachableBy)
	if err == nil && byErr == nil && by.Is4() != peer.Addr().Is4() {
		p.invalid(specPath.Child("reachableBy"), s.ReachableBy, "must be of the same IP version as peerIP %s", s.PeerIP)
	}
}

// checkTogether looks at what excludes or needs something else.
func (s *BGPPeerSpec) checkTogether(p *problems) {
	not := func(wrong bool, name, why string) {
		if wrong {
			p.forbidden(specPath.Child(name), why)
		}
	}
	local := s.LocalWorkloadSelector != ""
	not(s.Node != "" && s.NodeSelector != "", "nodeSelector", "cannot be set together with node")
	not(s.PeerIP != "" && s.PeerSelector != "", "peerSelector", "cannot be set together with peerIP")
	not(s.PeerSelector != "" && s.ASNumber != nil, "asNumber", "must be empty when peerSelector is set: nodes have theirs")
	not(local && s.PeerIP != "", "peerIP", "must be empty when localWorkloadSelector is set")
	not(local && s.PeerSelector != "", "peerSelector", "must be empty when localWorkloadSelector is set")
	not(s.ReachableBy != "" && s.PeerIP == "", "reachableBy", "must be empty when peerIP is")
	not(s.KeepOriginalNextHop && s.NextHopMode != "", "keepOriginalNextHop", "cannot be set together with nextHopMode, which says the same")
	if s.ASNumber == nil && local {
		p.required(specPath.Child("asNumber"), "when localWorkloadSelector is set")
	}
}

func (p *problems) positive(at *field.Path, d *Duration) {
	if d != nil && d.Duration <= 0 {
		p.invalid(at, d.Duration.String(), "must be more than nothing")
	}
}

func (p *problems) password(at *field.Path, pw *Password) {
	if pw != nil && pw.SecretKeyRef != nil && pw.SecretKeyRef.Key == "" {
		p.required(at.Child("secretKeyRef", "key"), "the key within the Secret")
	}
}
