package dataplane

// Settings are the parts of the configuration that shape the kernel's state beyond
// endpoints and policies. They come from FelixConfiguration; see package config.
type Settings struct {
	InterfacePrefixes []string // of pods' host-side interfaces; the first is used for new ones
	EndpointToHost    Action   // DefaultEndpointToHostAction: Deny, Allow, or Pass for RETURN
	FilterAllow       Verdict  // FilterAllowAction: Accept, or Return
	FilterDeny        Verdict  // FilterDenyAction: Drop or Reject
	MarkMask          uint32   // the bits of the packet mark that are ours
	IPv6              bool     // IPv6 is programmed
	AllowSpoofing     bool     // WorkloadSourceSpoofing Any: Endpoint.Sources are honoured
	AllowVXLANFromPod bool
	AllowIPIPFromPod  bool
	VXLANPort         uint16
	LogPrefix         string
	NATOutgoingAddr   string // empty: masquerade; else the source address to use
}

// Verdict is the end of a packet's evaluation.
type Verdict uint8

const (
	Accept Verdict = iota + 1
	Drop
	Reject
	Return // leave it to other tables' rules
)

func (v Verdict) String() string {
	return [...]string{"none", "accept", "drop", "reject", "return"}[v]
}

// DefaultSettings are upstream's defaults.
func DefaultSettings() Settings {
	return Settings{
		InterfacePrefixes: []string{"cali"},
		EndpointToHost:    Deny,
		FilterAllow:       Accept,
		FilterDeny:        Drop,
		MarkMask:          0xffff0000,
		IPv6:              true,
		VXLANPort:         4789,
		LogPrefix:         "calico-packet",
	}
}
