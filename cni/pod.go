package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/ipam"
)

// PodArgs are what came with the request: `args`, "org.projectcalico" of the configuration.
type PodArgs struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	// Where there is no Kubernetes to ask, these say the rest of what a pod is.
	ServiceAccount string             `json:"serviceAccount"`
	Ports          []api.EndpointPort `json:"ports"`
}

// Pod is what the cluster knows of a pod.
type Pod struct {
	Labels, Annotations map[string]string
	NamespaceLabels     map[string]string
	ServiceAccount      string
	Profiles            []string // in order
	Ports               []api.EndpointPort
}

// Pods answers what a pod is.
type Pods interface {
	Get(ctx context.Context, namespace, name string, args PodArgs) (Pod, error)
}

// Annotations that choose a pod's addresses.
const (
	annotationIPv4Pools = "cni.projectcalico.org/ipv4pools"
	annotationIPv6Pools = "cni.projectcalico.org/ipv6pools"
	annotationAddrs     = "cni.projectcalico.org/ipAddrs"
	annotationSources   = "cni.projectcalico.org/allowedSourcePrefixes"
)

// listAnnotation reads an annotation that is a JSON list of strings.
func (p *Pod) listAnnotation(name string) ([]string, error) {
	text, ok := p.Annotations[name]
	if !ok {
		return nil, nil
	}
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("annotation %s: want a JSON list of strings such as [\"name\"], got %q", name, text)
	}
	return list, nil
}

// addrAnnotation reads the addresses that the pod asks for.
func (p *Pod) addrAnnotation() ([]netip.Addr, error) {
	list, err := p.listAnnotation(annotationAddrs)
	var addrs []netip.Addr
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", annotationAddrs, err)
		}
		addrs = append(addrs, a)
	}
	return addrs, err
}

// selection is which addresses an attachment shall have.
type selection struct {
	families []dataplane.Family
	pools    []*api.IPPool
	addrs    []netip.Addr
}

// selectAddrs decides families and pools: the pod's annotation wins over the
// configuration, and that over all pools that select the node. A family that nobody
// asked for is given where a pool has it.
func selectAddrs(c IPAMConf, p *Pod, pools []*api.IPPool, node *api.Node) (selection, error) {
	var s selection
	var err error
	if s.addrs, err = p.addrAnnotation(); err != nil {
		return s, err
	}
	for _, f := range dataplane.Families {
		asked, confPools, annotation := c.AssignIPv4, c.IPv4Pools, annotationIPv4Pools
		if f == dataplane.IPv6 {
			asked, confPools, annotation = c.AssignIPv6, c.IPv6Pools, annotationIPv6Pools
		}
		if asked != nil && !*asked {
			continue
		}
		wanted, err := p.listAnnotation(annotation)
		if err != nil {
			return s, err
		}
		if wanted == nil {
			wanted = confPools
		}
		fit, err := ipam.SelectPools(pools, node, p.NamespaceLabels, wanted, f, api.UseWorkload)
		switch {
		case err == nil:
			s.families = append(s.families, f)
			s.pools = append(s.pools, fit...)
		case asked != nil || wanted != nil:
			return s, err
		}
	}
	if len(s.families) == 0 {
		return s, fmt.Errorf("no IP pool selects node %s for pods: %w", node.Name, ipam.ErrNoPool)
	}
	return s, nil
}

// endpoint is the WorkloadEndpoint of an attachment.
func endpoint(r *Request, p *Pod, node string, w Wiring) (*api.WorkloadEndpoint, error) {
	sources, err := p.listAnnotation(annotationSources)
	if err != nil {
		return nil, err
	}
	e := &api.WorkloadEndpoint{
		Meta: api.Named(api.KindWorkloadEndpoint, r.Namespace, api.WorkloadEndpointName(node, "k8s", r.Pod, r.ID.IfName)),
		Spec: api.WorkloadEndpointSpec{
			Orchestrator: "k8s", Workload: r.Pod, Pod: r.Pod, Node: node,
			ContainerID: r.ID.ContainerID, Endpoint: r.ID.IfName, ServiceAccountName: p.ServiceAccount,
			Profiles: p.Profiles, InterfaceName: string(w.Host), MAC: w.MAC, Ports: p.Ports,
			AllowSpoofedSourcePrefixes: sources,
		},
	}
	for _, a := range w.Addrs {
		e.Spec.IPNetworks = append(e.Spec.IPNetworks, netip.PrefixFrom(a, a.BitLen()).String())
	}
	e.Labels = map[string]string{}
	maps.Copy(e.Labels, p.Labels)
	e.Labels[api.LabelNamespace] = r.Namespace
	e.Labels[api.LabelOrchestrator] = "k8s"
	if p.ServiceAccount != "" {
		e.Labels[api.LabelServiceAccount] = p.ServiceAccount
	}
	e.Default()
	if err := e.Validate(); err != nil {
		return nil, err
	}
	return e, nil
}
