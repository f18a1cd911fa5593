package etcd

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Where things lie in etcd, as upstream has it.
const (
	root       = "/calico/"
	resources  = root + "resources/v3/projectcalico.org/" // PLURAL/[NAMESPACE/]NAME
	kubernetes = root + "resources/v3/kubernetes/"        // the same, for Kubernetes' own kinds; upstream keeps none in etcd
	ipam       = root + "ipam/v2/"
	blocks     = ipam + "assignment/" // ipv4/block/10.10.72.0-26
	hosts      = ipam + "host/"       // NODE/ipv4/block/10.10.72.0-26
	virtuals   = ipam + "virtual/"    // the same, for owners that are no node
	handles    = ipam + "handle/"     // ID
	ipamConfig = ipam + "config"      // the one IPAMConfiguration
	probe      = root + "v1/Ready"    // read to see whether etcd answers; may be absent
)

// Types of a BlockAffinity.
const (
	affinityHost    = "host"
	affinityVirtual = "virtual"
)

// configName is the name of the one IPAMConfiguration.
const configName = "default"

// invalid is an OpError that is ErrInvalid.
func invalid(k store.Key, format string, args ...any) error {
	return &store.OpError{Key: k, Err: fmt.Errorf("%w: %s", store.ErrInvalid, fmt.Sprintf(format, args...))}
}

// resourcePrefix is what the paths of a kind stored in its v3 form begin with.
func resourcePrefix(kind *api.Kind) string {
	if kind.Group != "" {
		return kubernetes + kind.Plural + "/"
	}
	return resources + kind.Plural + "/"
}

// resourcePath is the path of an object stored in its v3 form.
func resourcePath(kind *api.Kind, k store.Key) (string, error) {
	if strings.Contains(k.Name, "/") || strings.Contains(k.Namespace, "/") {
		return "", invalid(k, "names must not contain a slash")
	}
	p := resourcePrefix(kind)
	if kind.Namespaced {
		p += k.Namespace + "/"
	}
	return p + k.Name, nil
}

// resourceKey is the inverse of resourcePath.
func resourceKey(kind *api.Kind, path string) (store.Key, error) {
	rest := strings.TrimPrefix(path, resourcePrefix(kind))
	k := store.Key{Kind: kind.Name, Name: rest}
	if kind.Namespaced {
		k.Namespace, k.Name, _ = strings.Cut(rest, "/")
	}
	if strings.Contains(k.Name, "/") || k.Check() != nil {
		return k, fmt.Errorf("%w: the key %s names no %s", store.ErrInvalid, path, kind.Name)
	}
	return k, nil
}

// cidrPath writes a block as paths have it: ipv4/block/10.10.72.0-26.
func cidrPath(p netip.Prefix) string {
	family := "ipv4"
	if p.Addr().Is6() {
		family = "ipv6"
	}
	return family + "/block/" + strings.Replace(p.String(), "/", "-", 1)
}

// parseCIDRPath is the inverse of cidrPath.
func parseCIDRPath(s string) (netip.Prefix, bool) {
	_, block, _ := strings.Cut(s, "/block/")
	p, err := netip.ParsePrefix(strings.Replace(block, "-", "/", 1))
	return p, err == nil && p == p.Masked() && cidrPath(p) == s
}

var dashes = strings.NewReplacer(".", "-", "/", "-", ":", "-")

// cidrName writes a block as names have it: 10-10-72-0-26.
func cidrName(p netip.Prefix) string { return dashes.Replace(p.String()) }

// parseCIDRName returns the blocks that are called s. There is at most one, since an
// IPv4 block has five parts and an IPv6 block nine or an empty one.
func parseCIDRName(s string) (netip.Prefix, bool) {
	i := strings.LastIndexByte(s, '-')
	if i < 0 {
		return netip.Prefix{}, false
	}
	for _, sep := range []string{".", ":"} {
		p, err := netip.ParsePrefix(strings.ReplaceAll(s[:i], "-", sep) + "/" + s[i+1:])
		if err == nil && p == p.Masked() && cidrName(p) == s {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// parseCIDR reads the CIDR of an object's spec.
func parseCIDR(k store.Key, s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || p != p.Masked() {
		return p, invalid(k, "spec.cidr %q: want a block such as 10.10.72.0/26", s)
	}
	return p, nil
}

// affinityName is the name of the claim of a node on a block: node1-10-10-72-0-26.
func affinityName(node string, p netip.Prefix) string { return node + "-" + cidrName(p) }

func affinityPath(typ, node string, p netip.Prefix) string {
	base := hosts
	if typ == affinityVirtual {
		base = virtuals
	}
	return base + node + "/" + cidrPath(p)
}

// parseAffinityPath is the inverse of affinityPath.
func parseAffinityPath(path string) (typ, node string, p netip.Prefix, ok bool) {
	typ, rest := affinityHost, strings.TrimPrefix(path, hosts)
	if strings.HasPrefix(path, virtuals) {
		typ, rest = affinityVirtual, strings.TrimPrefix(path, virtuals)
	}
	node, block, _ := strings.Cut(rest, "/")
	p, ok = parseCIDRPath(block)
	return typ, node, p, ok && node != ""
}

// affinityPaths returns where the claim called name may lie. A name does not say where
// the node ends and the block begins, nor which type it is, so there can be several;
// the likeliest comes first.
func affinityPaths(name string) []string {
	var host, virtual []string
	for i := range len(name) {
		if name[i] != '-' || i == 0 {
			continue
		}
		if p, ok := parseCIDRName(name[i+1:]); ok {
			host = append(host, affinityPath(affinityHost, name[:i], p))
			virtual = append(virtual, affinityPath(affinityVirtual, name[:i], p))
		}
	}
	return append(host, virtual...)
}

// Handle ids are escaped as upstream escapes them.
var (
	escaper   = strings.NewReplacer("%", "%25", "/", "%2f")
	unescaper = strings.NewReplacer("%2f", "/", "%25", "%")
)
