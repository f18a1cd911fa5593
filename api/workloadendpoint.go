package api

import "strings"

// WorkloadEndpoint is one network interface of a pod.
type WorkloadEndpoint struct {
	Meta `json:",inline"`
	Spec WorkloadEndpointSpec `json:"spec"`
}

// WorkloadEndpointSpec says whose interface it is and what it has.
type WorkloadEndpointSpec struct {
	Orchestrator               string         `json:"orchestrator,omitempty"`
	Workload                   string         `json:"workload,omitempty"`
	Node                       string         `json:"node,omitempty"`
	ContainerID                string         `json:"containerID,omitempty"`
	Pod                        string         `json:"pod,omitempty"`
	Endpoint                   string         `json:"endpoint,omitempty"` // interface name in the pod
	ServiceAccountName         string         `json:"serviceAccountName,omitempty"`
	IPNetworks                 []string       `json:"ipNetworks,omitempty"` // /32 and /128
	IPNATs                     []IPNAT        `json:"ipNATs,omitempty"`
	IPv4Gateway                string         `json:"ipv4Gateway,omitempty"`
	IPv6Gateway                string         `json:"ipv6Gateway,omitempty"`
	Profiles                   []string       `json:"profiles,omitempty"`
	InterfaceName              string         `json:"interfaceName,omitempty"` // host side, cali…
	MAC                        string         `json:"mac,omitempty"`
	Ports                      []EndpointPort `json:"ports,omitempty"`
	AllowSpoofedSourcePrefixes []string       `json:"allowSpoofedSourcePrefixes,omitempty"`
}

// IPNAT is a floating address.
type IPNAT struct {
	InternalIP string `json:"internalIP"`
	ExternalIP string `json:"externalIP"`
}

// EndpointPort is a named port.
type EndpointPort struct {
	Name     string   `json:"name"`
	Protocol Protocol `json:"protocol"`
	Port     uint16   `json:"port"`
	HostPort uint16   `json:"hostPort,omitempty"`
	HostIP   string   `json:"hostIP,omitempty"`
}

// WorkloadEndpointName is the name of the endpoint of a workload:
// node-orchestrator-workload-endpoint, each dash inside a part doubled.
func WorkloadEndpointName(node, orchestrator, workload, endpoint string) string {
	parts := []string{node, orchestrator, workload, endpoint}
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(p, "-", "--")
	}
	return strings.Join(parts, "-")
}

// KindWorkloadEndpoint describes WorkloadEndpoint.
var KindWorkloadEndpoint = register(&Kind{
	Name:       "WorkloadEndpoint",
	Plural:     "workloadendpoints",
	Short:      []string{"wep", "weps"},
	Namespaced: true,
	New:        func() Object { return &WorkloadEndpoint{Meta: typed("WorkloadEndpoint")} },
})

// Default fills in what the user left out.
func (o *WorkloadEndpoint) Default() {}

// Validate says what is wrong with o.
func (o *WorkloadEndpoint) Validate() error { return nil }
