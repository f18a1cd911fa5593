package dataplane

import "time"

// Settings are the parts of the configuration that shape the kernel's state beyond
// endpoints and policies. They come from FelixConfiguration; see package config.
type Settings struct {
	Backend           Backend
	InterfacePrefixes []string // of pods' host-side interfaces; the first is used for new ones
	EndpointToHost    Action   // DefaultEndpointToHostAction: Deny, Allow, or Pass for RETURN
	FilterAllow       Verdict  // FilterAllowAction: Accept, or Return
	FilterDeny        Verdict  // FilterDenyAction: Drop or Reject
	MangleAllow       Verdict  // MangleAllowAction: Accept, or Return
	MarkMask          uint32   // the bits of the packet mark that are ours
	IPv6              bool     // IPv6 is programmed
	AllowSpoofing     bool     // WorkloadSourceSpoofing Any: Endpoint.Sources are honoured
	AllowVXLANFromPod bool
	AllowIPIPFromPod  bool
	VXLANPort         uint16
	LogPrefix         string
	LogRate           Rate   // of the action Log; zero: unlimited
	LogGroup          uint16 // NFLOG group of the action Log; 0: the kernel's log
	Iptables          IptablesSettings
	Refresh           time.Duration // how often the rules are read back; 0: never
	NATOutgoingAddr   string        // empty: masquerade; else the source address to use
}

// IptablesSettings are what only the backend Iptables takes.
type IptablesSettings struct {
	Variant    string // IptablesBackend: auto, legacy, nft
	Append     bool   // ChainInsertMode: our jumps come after others' rules
	MaxSetSize int    // MaxIpsetSize
}

// Backend is the kernel's packet filter that holds the rules.
type Backend uint8

const (
	NFTables Backend = iota // the default
	Iptables                // and ipset
)

func (b Backend) String() string { return nameOf(b, "nftables", "iptables") }

// Rate is a number of packets in a time, and how many may come at once before it counts.
type Rate struct {
	Packets int
	Per     Period
	Burst   int // at least 1
}

// Period is the unit of a rate.
type Period uint8

const (
	PerSecond Period = iota + 1
	PerMinute
	PerHour
	PerDay
)

func (p Period) String() string { return nameOf(p, "none", "second", "minute", "hour", "day") }

// Verdict is the end of a packet's evaluation.
type Verdict uint8

const (
	Accept Verdict = iota + 1
	Drop
	Reject
	Return // leave it to other tables' rules
	Reset  // drop it, and end its TCP connection at the sender (RFC 9293, 3.5.2)
)

func (v Verdict) String() string {
	return nameOf(v, "none", "accept", "drop", "reject", "return", "reset")
}

// DefaultSettings are upstream's defaults.
func DefaultSettings() Settings {
	return Settings{
		InterfacePrefixes: []string{"cali"},
		EndpointToHost:    Deny,
		FilterAllow:       Accept,
		FilterDeny:        Drop,
		MangleAllow:       Accept,
		MarkMask:          0xffff0000,
		IPv6:              true,
		VXLANPort:         4789,
		LogPrefix:         "calico-packet",
		Iptables:          IptablesSettings{Variant: "auto", MaxSetSize: 1 << 20},
		Refresh:           180 * time.Second,
	}
}
