package config

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
)

// Felix holds the parameters that the program reads, typed. See [Params] for their
// meaning.
type Felix struct {
	InterfacePrefixes   []string
	InterfaceExclude    []string
	Ipv6Support         bool
	IPForwarding        bool
	MTUIfacePattern     *regexp.Regexp
	RequireMTUFile      bool
	LogPrefix           string
	LogRate             dataplane.Rate // LogActionRateLimit and LogActionRateLimitBurst
	LogSeverityScreen   string         // DEBUG, ERROR, FATAL, INFO, TRACE, WARNING; empty for no messages
	DisableCTInvalid    bool           // DisableConntrackInvalidCheck
	ChainInsertMode     string         // insert, append
	KubeNodePortRanges  []PortRange
	ServiceLoopPrevent  string // ServiceLoopPrevention: Disabled, Drop, Reject
	FloatingIPs         bool
	NFTablesMode        string // Auto, Disabled, Enabled
	IptablesBackend     string // auto, legacy, nft
	NftablesMarkMask    uint32
	IptablesMarkMask    uint32
	NftRefreshInterval  time.Duration // NftablesRefreshInterval
	IptRefreshInterval  time.Duration // IptablesRefreshInterval
	SetRefreshInterval  time.Duration // IpsetsRefreshInterval
	MaxIpsetSize        int
	LogGroup            uint16        // LogActionNFLOGGroup
	RouteRefresh        time.Duration // RouteRefreshInterval
	WorkloadSpoofingAny bool          // WorkloadSourceSpoofing is Any

	DefaultEndpointToHostAction    string // ACCEPT, DROP, RETURN
	NftablesFilterAllowAction      string // ACCEPT, RETURN
	NftablesFilterDenyAction       string // DROP, REJECT
	IptablesFilterAllowAction      string
	IptablesFilterDenyAction       string
	NftablesMangleAllowAction      string // ACCEPT, RETURN
	IptablesMangleAllowAction      string
	AllowVXLANPacketsFromWorkloads bool
	AllowIPIPPacketsFromWorkloads  bool

	VXLANEnabled *bool // nil: as the pools have it
	VXLANPort    uint16
	VXLANVNI     int
	VXLANMTU     int // 0: from the host's
	VXLANMTUV6   int
	IPIPEnabled  *bool // IpInIpEnabled; nil: as the pools have it
	IPIPMTU      int   // IpInIpMtu

	RouteSource              string // CalicoIPAM, WorkloadIPs
	ProgramClusterRoutes     string // Disabled, EnabledIPIPOnly, EnabledNoEncapOnly, Enabled
	DeviceRouteProtocol      int
	DeviceRouteSourceAddress netip.Addr // invalid: the kernel's choice
	DeviceRouteSourceIPv6    netip.Addr // DeviceRouteSourceAddressIPv6
	RemoveExternalRoutes     bool
	IPv4NormalRoutePriority  int
	IPv6NormalRoutePriority  int

	NATOutgoingAddress    netip.Addr // invalid: masquerade
	NATOutgoingExclusions string     // IPPoolsAndHostIPs, IPPoolsOnly
	NATPortRange          PortRange

	FailsafeInboundHostPorts  []HostPort
	FailsafeOutboundHostPorts []HostPort

	HealthEnabled            bool
	HealthHost               string
	HealthPort               int
	PrometheusMetricsEnabled bool
	PrometheusMetricsHost    string
	PrometheusMetricsPort    int
}

// Resolve merges layers: each wins over those after it, and all over the built-in
// defaults. A value that is not allowed is reported, and what the layers after it say
// counts.
func Resolve(layers ...Layer) (Felix, []error) {
	var errs []error
	values := map[string]any{}
	for _, l := range slices.Backward(layers) {
		errs = append(l.Errors(), errs...)
		for name, text := range l.Values {
			p, ok := byName[name]
			if !ok {
				continue
			}
			if v, err := p.value(text); err == nil {
				values[p.Name] = v
			}
		}
	}
	return felix(values), errs
}

// get returns a parameter's value.
func get[T any](values map[string]any, name string) T {
	if v, ok := values[name]; ok {
		return v.(T)
	}
	return byName[strings.ToLower(name)].builtIn().(T)
}

// optional is a boolean that may be left to other facts.
func optional(values map[string]any, name string) *bool {
	if v, ok := values[name].(bool); ok {
		return &v
	}
	return nil
}

func felix(v map[string]any) Felix {
	f := Felix{
		InterfacePrefixes:   get[[]string](v, "InterfacePrefix"),
		InterfaceExclude:    get[[]string](v, "InterfaceExclude"),
		Ipv6Support:         get[bool](v, "Ipv6Support"),
		IPForwarding:        get[string](v, "IPForwarding") == "Enabled",
		MTUIfacePattern:     get[*regexp.Regexp](v, "MTUIfacePattern"),
		RequireMTUFile:      get[bool](v, "RequireMTUFile"),
		LogPrefix:           get[string](v, "LogPrefix"),
		LogSeverityScreen:   get[string](v, "LogSeverityScreen"),
		DisableCTInvalid:    get[bool](v, "DisableConntrackInvalidCheck"),
		ChainInsertMode:     get[string](v, "ChainInsertMode"),
		KubeNodePortRanges:  get[[]PortRange](v, "KubeNodePortRanges"),
		ServiceLoopPrevent:  get[string](v, "ServiceLoopPrevention"),
		FloatingIPs:         get[string](v, "FloatingIPs") == "Enabled",
		NFTablesMode:        get[string](v, "NFTablesMode"),
		IptablesBackend:     get[string](v, "IptablesBackend"),
		NftablesMarkMask:    get[uint32](v, "NftablesMarkMask"),
		IptablesMarkMask:    get[uint32](v, "IptablesMarkMask"),
		NftRefreshInterval:  get[time.Duration](v, "NftablesRefreshInterval"),
		IptRefreshInterval:  get[time.Duration](v, "IptablesRefreshInterval"),
		SetRefreshInterval:  get[time.Duration](v, "IpsetsRefreshInterval"),
		MaxIpsetSize:        get[int](v, "MaxIpsetSize"),
		LogGroup:            uint16(get[int](v, "LogActionNFLOGGroup")),
		RouteRefresh:        get[time.Duration](v, "RouteRefreshInterval"),
		WorkloadSpoofingAny: get[string](v, "WorkloadSourceSpoofing") == "Any",
	}
	f.setActions(v)
	f.setOverlay(v)
	f.setRoutes(v)
	f.setServers(v)
	return f
}

func (f *Felix) setActions(v map[string]any) {
	f.DefaultEndpointToHostAction = get[string](v, "DefaultEndpointToHostAction")
	f.NftablesFilterAllowAction = get[string](v, "NftablesFilterAllowAction")
	f.NftablesFilterDenyAction = get[string](v, "NftablesFilterDenyAction")
	f.IptablesFilterAllowAction = get[string](v, "IptablesFilterAllowAction")
	f.IptablesFilterDenyAction = get[string](v, "IptablesFilterDenyAction")
	f.NftablesMangleAllowAction = get[string](v, "NftablesMangleAllowAction")
	f.IptablesMangleAllowAction = get[string](v, "IptablesMangleAllowAction")
	f.LogRate = rate(get[string](v, "LogActionRateLimit"), get[int](v, "LogActionRateLimitBurst"))
	f.AllowVXLANPacketsFromWorkloads = get[bool](v, "AllowVXLANPacketsFromWorkloads")
	f.AllowIPIPPacketsFromWorkloads = get[bool](v, "AllowIPIPPacketsFromWorkloads")
	f.FailsafeInboundHostPorts = get[[]HostPort](v, "FailsafeInboundHostPorts")
	f.FailsafeOutboundHostPorts = get[[]HostPort](v, "FailsafeOutboundHostPorts")
}

func (f *Felix) setOverlay(v map[string]any) {
	f.VXLANEnabled = optional(v, "VXLANEnabled")
	f.VXLANPort = uint16(get[int](v, "VXLANPort"))
	f.VXLANVNI = get[int](v, "VXLANVNI")
	f.VXLANMTU = get[int](v, "VXLANMTU")
	f.VXLANMTUV6 = get[int](v, "VXLANMTUV6")
	f.IPIPEnabled = optional(v, "IpInIpEnabled")
	f.IPIPMTU = get[int](v, "IpInIpMtu")
}

func (f *Felix) setRoutes(v map[string]any) {
	f.RouteSource = get[string](v, "RouteSource")
	f.ProgramClusterRoutes = get[string](v, "ProgramClusterRoutes")
	f.DeviceRouteProtocol = get[int](v, "DeviceRouteProtocol")
	f.DeviceRouteSourceAddress = get[netip.Addr](v, "DeviceRouteSourceAddress")
	f.DeviceRouteSourceIPv6 = get[netip.Addr](v, "DeviceRouteSourceAddressIPv6")
	f.RemoveExternalRoutes = get[bool](v, "RemoveExternalRoutes")
	f.IPv4NormalRoutePriority = get[int](v, "IPv4NormalRoutePriority")
	f.IPv6NormalRoutePriority = get[int](v, "IPv6NormalRoutePriority")
	f.NATOutgoingAddress = get[netip.Addr](v, "NATOutgoingAddress")
	f.NATOutgoingExclusions = get[string](v, "NATOutgoingExclusions")
	f.NATPortRange = get[PortRange](v, "NATPortRange")
}

func (f *Felix) setServers(v map[string]any) {
	f.HealthEnabled = get[bool](v, "HealthEnabled")
	f.HealthHost = get[string](v, "HealthHost")
	f.HealthPort = get[int](v, "HealthPort")
	f.PrometheusMetricsEnabled = get[bool](v, "PrometheusMetricsEnabled")
	f.PrometheusMetricsHost = get[string](v, "PrometheusMetricsHost")
	f.PrometheusMetricsPort = get[int](v, "PrometheusMetricsPort")
}

// rate reads a rate such as 10/second, which the table has checked.
func rate(s string, burst int) dataplane.Rate {
	n, unit, ok := strings.Cut(s, "/")
	packets, err := strconv.Atoi(n)
	if !ok || err != nil {
		return dataplane.Rate{}
	}
	for p := dataplane.PerSecond; p <= dataplane.PerDay; p++ {
		if p.String() == unit {
			return dataplane.Rate{Packets: packets, Per: p, Burst: max(burst, 1)}
		}
	}
	return dataplane.Rate{}
}

// often is the shorter of two intervals, of which 0 is never. The tables and the sets of iptables are read
// together.
func often(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Settings returns what the kernel's state takes from the configuration.
func (f Felix) Settings() dataplane.Settings {
	s := dataplane.Settings{
		InterfacePrefixes: f.InterfacePrefixes,
		EndpointToHost:    dataplane.Deny,
		FilterAllow:       dataplane.Accept,
		FilterDeny:        dataplane.Drop,
		MangleAllow:       dataplane.Accept,
		MarkMask:          f.NftablesMarkMask,
		IPv6:              f.Ipv6Support,
		AllowSpoofing:     f.WorkloadSpoofingAny,
		AllowVXLANFromPod: f.AllowVXLANPacketsFromWorkloads,
		AllowIPIPFromPod:  f.AllowIPIPPacketsFromWorkloads,
		VXLANPort:         f.VXLANPort,
		LogPrefix:         f.LogPrefix,
		LogRate:           f.LogRate,
		LogGroup:          f.LogGroup,
		Iptables:          dataplane.IptablesSettings{Variant: f.IptablesBackend, Append: f.ChainInsertMode == "append", MaxSetSize: f.MaxIpsetSize},
		Refresh:           f.NftRefreshInterval,
	}
	allow, deny, mangle := f.NftablesFilterAllowAction, f.NftablesFilterDenyAction, f.NftablesMangleAllowAction
	if f.NFTablesMode == "Disabled" {
		s.Backend, s.MarkMask = dataplane.Iptables, f.IptablesMarkMask
		s.Refresh = often(f.IptRefreshInterval, f.SetRefreshInterval)
		allow, deny, mangle = f.IptablesFilterAllowAction, f.IptablesFilterDenyAction, f.IptablesMangleAllowAction
	}
	switch f.DefaultEndpointToHostAction {
	case "ACCEPT":
		s.EndpointToHost = dataplane.Allow
	case "RETURN":
		s.EndpointToHost = dataplane.Pass
	}
	if allow == "RETURN" {
		s.FilterAllow = dataplane.Return
	}
	if deny == "REJECT" {
		s.FilterDeny = dataplane.Reject
	}
	if mangle == "RETURN" {
		s.MangleAllow = dataplane.Return
	}
	if f.NATOutgoingAddress.IsValid() {
		s.NATOutgoingAddr = f.NATOutgoingAddress.String()
	}
	return s
}

// Validate says what is wrong with the parameters of a FelixConfiguration. The rest of
// the object is for its own Validate.
func Validate(o *api.FelixConfiguration) error {
	errs := FromResource(o).Errors()
	_, one := o.Spec["routeTableRange"]
	_, many := o.Spec["routeTableRanges"]
	if one && many {
		errs = append(errs, fmt.Errorf("FelixConfiguration %s: spec.routeTableRange and spec.routeTableRanges cannot both be set", o.Name))
	}
	var msgs []string
	for _, err := range errs {
		msgs = append(msgs, err.Error())
	}
	if len(msgs) == 0 {
		return nil
	}
	return errors.New(strings.Join(msgs, "; "))
}
