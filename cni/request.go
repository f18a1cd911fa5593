package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/dataplane"
)

// pluginType is that of our network configurations.
const pluginType = "calico"

// Request is a plugin's call, understood.
type Request struct {
	Command   string
	ID        dataplane.AttachmentID
	Namespace string
	Pod       string
	NetNS     string // path, for the result only
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
		Calico PodArgs `json:"org.projectcalico"`
	} `json:"args"`

	// What follows is taken and ignored: the agent has a datastore connection of its own.
	DatastoreType json.RawMessage `json:"datastore_type"`
	EtcdEndpoints json.RawMessage `json:"etcd_endpoints"`
	EtcdKeyFile   json.RawMessage `json:"etcd_key_file"`
	EtcdCertFile  json.RawMessage `json:"etcd_cert_file"`
	EtcdCAFile    json.RawMessage `json:"etcd_ca_cert_file"`
	Kubernetes    json.RawMessage `json:"kubernetes"`
	Policy        json.RawMessage `json:"policy"`

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

// Names become parts of keys in the datastore, so they are held to what their owners
// allow: the CNI specification, and Kubernetes (RFC 1123).
var (
	networkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,200}$`)
	objectName  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
)

// ParseRequest understands a call; its errors are [wire.Error]s. A DEL needs no more than
// the network's name and is understood whatever else the configuration says: it follows
// an ADD that was refused for that, and a runtime keeps a sandbox that it cannot DEL.
func ParseRequest(w *wire.Request) (*Request, error) {
	if err := w.Validate(); err != nil {
		return nil, err
	}
	r := &Request{Command: w.Command, ID: dataplane.AttachmentID{ContainerID: w.ContainerID, IfName: w.IfName}, NetNS: w.NetNS}
	r.parseArgs(w.Args)
	err := json.Unmarshal(w.Config, &r.Conf)
	if w.Command == "DEL" {
		return r, nil
	}
	if err != nil {
		return nil, wire.Errorf(wire.CodeDecode, "network configuration: %v", err)
	}
	if err := r.Conf.validate(); err != nil {
		return nil, err
	}
	if w.Command == "ADD" || w.Command == "CHECK" {
		if r.Conf.Type != "" && r.Conf.Type != pluginType { // it would wire the pod, which the other does
			return nil, wire.Errorf(wire.CodeConfig, "network configuration: calico-ipam gives addresses to plugins of type %s only, not %q", pluginType, r.Conf.Type)
		}
		if err := r.validateNames(); err != nil {
			return nil, err
		}
	}
	r.Args = r.Conf.Args.Calico
	return r, nil
}

func (r *Request) parseArgs(text string) {
	args := wire.ParseArgs(text)
	r.Namespace, r.Pod = args["K8S_POD_NAMESPACE"], args["K8S_POD_NAME"]
	if r.Namespace == "" {
		r.Namespace = "default"
	}
	if r.Pod == "" {
		r.Pod = strings.ToLower(r.ID.ContainerID)
	}
}

// validateNames checks the pod's names; its error is a [wire.Error].
func (r *Request) validateNames() error {
	if !objectName.MatchString(r.Namespace) {
		return wire.Errorf(wire.CodeEnvironment, "CNI_ARGS: K8S_POD_NAMESPACE=%q is not a namespace's name", r.Namespace)
	}
	if !objectName.MatchString(r.Pod) {
		return wire.Errorf(wire.CodeEnvironment, "CNI_ARGS: K8S_POD_NAME=%q is not a pod's name", r.Pod)
	}
	return nil
}

// validateName checks the network's name; its error is a [wire.Error].
func (c *NetConf) validateName() error {
	if c.Name == "" {
		return wire.Errorf(wire.CodeConfig, "network configuration: name is missing")
	}
	if !networkName.MatchString(c.Name) {
		return wire.Errorf(wire.CodeConfig, "network configuration: name %q: want letters, digits, _, . and -", c.Name)
	}
	return nil
}

// validate checks the rest as well; its error is a [wire.Error].
func (c *NetConf) validate() error {
	switch c.CNIVersion {
	case "", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0":
	default:
		return wire.Errorf(wire.CodeIncompatible, "network configuration: cniVersion %q: want 0.3.1 to 1.1.0", c.CNIVersion)
	}
	if err := c.validateName(); err != nil {
		return err
	}
	if t := c.IPAM.Type; t != "" && t != "calico-ipam" {
		return wire.Errorf(wire.CodeConfig, "network configuration: ipam.type %q: this build assigns addresses by calico-ipam only", t)
	}
	if c.MTU < 0 || c.MTU > 65535 {
		return wire.Errorf(wire.CodeConfig, "network configuration: mtu %d: want 0 to 65535", c.MTU)
	}
	for _, route := range c.IPAM.Routes {
		if _, err := netip.ParsePrefix(route.Dst); err != nil {
			return wire.Errorf(wire.CodeConfig, "network configuration: ipam.routes: %v", err)
		}
	}
	return nil
}

// Handle is the IPAM handle of the attachment's addresses.
func (r *Request) Handle() string { return r.Conf.Name + "." + r.ID.ContainerID }

// Patience is how long an ADD may wait for rules and routes.
func (r *Request) Patience() time.Duration {
	if s := r.Conf.PolicySetupTimeoutSeconds; s > 0 {
		return wire.Seconds(s)
	}
	return 10 * time.Second
}

// ignored names the parts of the configuration that are given and have no effect.
func (c *NetConf) ignored() []string {
	var names []string
	for name, given := range map[string]bool{
		"datastore_type": len(c.DatastoreType) > 0,
		"etcd_*":         len(c.EtcdEndpoints)+len(c.EtcdKeyFile)+len(c.EtcdCertFile)+len(c.EtcdCAFile) > 0,
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
