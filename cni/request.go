package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"time"

	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/dataplane"
)

// Request is a plugin's call, understood.
type Request struct {
	Command   string
	ID        dataplane.AttachmentID
	Namespace string
	Pod       string
	Args      PodArgs
	Conf      NetConf
}

// NetConf is the network configuration, as far as it is honoured.
type NetConf struct {
	CNIVersion string   `json:"cniVersion"`
	Name       string   `json:"name"`
	Type       string   `json:"type"`
	MTU        int      `json:"mtu"` // 0: the node's choice
	NodeName   string   `json:"nodename"`
	IPAM       IPAMConf `json:"ipam"`

	ContainerSettings struct {
		AllowIPForwarding bool `json:"allow_ip_forwarding"`
	} `json:"container_settings"`
	PolicySetupTimeoutSeconds float64 `json:"policy_setup_timeout_seconds"`
	IncludeDefaultRoutes      bool    `json:"include_default_routes"`

	Args struct {
		Calico struct {
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"org.projectcalico"`
	} `json:"args"`

	// What follows is taken and ignored: the agent has a datastore connection of its own.
	DatastoreType string          `json:"datastore_type"`
	EtcdEndpoints string          `json:"etcd_endpoints"`
	EtcdKeyFile   string          `json:"etcd_key_file"`
	EtcdCertFile  string          `json:"etcd_cert_file"`
	EtcdCAFile    string          `json:"etcd_ca_cert_file"`
	Kubernetes    json.RawMessage `json:"kubernetes"`
	Policy        json.RawMessage `json:"policy"`

	PrevResult    json.RawMessage `json:"prevResult"`
	ValidAttached []AttachmentRef `json:"cni.dev/valid-attachments"` // GC
}

// AttachmentRef names an attachment that the runtime still has.
type AttachmentRef struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// IPAMConf is the ipam section.
type IPAMConf struct {
	Type       string   `json:"type"`
	AssignIPv4 *Bool    `json:"assign_ipv4"` // unset: if there is a pool
	AssignIPv6 *Bool    `json:"assign_ipv6"`
	IPv4Pools  []string `json:"ipv4_pools"` // names or CIDRs
	IPv6Pools  []string `json:"ipv6_pools"`
	Routes     []struct {
		Dst string `json:"dst"`
	} `json:"routes"`
}

// Bool is written true or "true", as users of upstream do.
type Bool bool

// UnmarshalJSON takes a boolean or its name.
func (b *Bool) UnmarshalJSON(j []byte) error {
	switch s := strings.ToLower(strings.Trim(string(j), `"`)); s {
	case "true", "1", "yes":
		*b = true
	case "false", "0", "no", "":
		*b = false
	default:
		return fmt.Errorf("%s: want true or false", j)
	}
	return nil
}

// ParseRequest understands a call; its errors are [wire.Error]s.
func ParseRequest(w *wire.Request) (*Request, error) {
	if err := w.Validate(); err != nil {
		return nil, err
	}
	r := &Request{Command: w.Command, ID: dataplane.AttachmentID{ContainerID: w.ContainerID, IfName: w.IfName}}
	if err := json.Unmarshal(w.Config, &r.Conf); err != nil {
		return nil, wire.Errorf(wire.CodeDecode, "network configuration: %v", err)
	}
	switch r.Conf.CNIVersion {
	case "", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0":
	default:
		return nil, wire.Errorf(wire.CodeIncompatible, "network configuration: cniVersion %q: want 0.3.1 to 1.1.0", r.Conf.CNIVersion)
	}
	if r.Conf.Name == "" {
		return nil, wire.Errorf(wire.CodeConfig, "network configuration: name is missing")
	}
	if t := r.Conf.IPAM.Type; t != "" && t != "calico-ipam" {
		return nil, wire.Errorf(wire.CodeConfig, "network configuration: ipam.type %q: this build assigns addresses by calico-ipam only", t)
	}
	if r.Conf.MTU < 0 || r.Conf.MTU > 65535 {
		return nil, wire.Errorf(wire.CodeConfig, "network configuration: mtu %d: want 0 to 65535", r.Conf.MTU)
	}
	for _, route := range r.Conf.IPAM.Routes {
		if _, err := netip.ParsePrefix(route.Dst); err != nil {
			return nil, wire.Errorf(wire.CodeConfig, "network configuration: ipam.routes: %v", err)
		}
	}
	args := wire.ParseArgs(w.Args)
	r.Namespace, r.Pod = args["K8S_POD_NAMESPACE"], args["K8S_POD_NAME"]
	if r.Namespace == "" {
		r.Namespace = "default"
	}
	if r.Pod == "" {
		r.Pod = strings.ToLower(w.ContainerID)
	}
	r.Args = PodArgs{Labels: r.Conf.Args.Calico.Labels, Annotations: r.Conf.Args.Calico.Annotations}
	return r, nil
}

// Handle is the IPAM handle of the attachment's addresses.
func (r *Request) Handle() string { return r.Conf.Name + "." + r.ID.ContainerID }

// Patience is how long an ADD may wait for rules and routes.
func (r *Request) Patience() time.Duration {
	if s := r.Conf.PolicySetupTimeoutSeconds; s > 0 {
		return time.Duration(s * float64(time.Second))
	}
	return 10 * time.Second
}

// ignored names the parts of the configuration that are given and have no effect.
func (c *NetConf) ignored() []string {
	var names []string
	for name, given := range map[string]bool{
		"datastore_type": c.DatastoreType != "",
		"etcd_*":         c.EtcdEndpoints+c.EtcdKeyFile+c.EtcdCertFile+c.EtcdCAFile != "",
		"kubernetes":     len(c.Kubernetes) > 0,
		"policy":         len(c.Policy) > 0,
	} {
		if given {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}
