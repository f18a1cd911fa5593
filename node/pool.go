package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// PoolSetting is a pool that the first node of a cluster creates where there is none.
type PoolSetting struct {
	Name string
	Spec api.IPPoolSpec
}

// defaultPools reads CALICO_IPV4POOL_* and CALICO_IPV6POOL_* as upstream does. There is an
// IPv6 pool only if its CIDR is given.
func defaultPools(env map[string]string) ([]PoolSetting, error) {
	if isTrue(env["NO_DEFAULT_POOLS"]) {
		return nil, nil
	}
	var pools []PoolSetting
	for _, f := range []struct{ prefix, name, cidr, nat string }{
		{"CALICO_IPV4POOL_", "default-ipv4-ippool", "192.168.0.0/16", "true"},
		{"CALICO_IPV6POOL_", "default-ipv6-ippool", "", "false"},
	} {
		cidr := or(env[f.prefix+"CIDR"], f.cidr)
		if cidr == "" || cidr == "none" {
			continue
		}
		p, err := defaultPool(f.name, cidr, func(key, def string) string { return or(env[f.prefix+key], def) }, f.nat)
		if err != nil {
			return nil, fmt.Errorf("%s*: %w", f.prefix, err)
		}
		pools = append(pools, p)
	}
	return pools, nil
}

func defaultPool(name, cidr string, get func(key, def string) string, nat string) (PoolSetting, error) {
	s := api.IPPoolSpec{
		CIDR: cidr, NATOutgoing: isTrue(get("NAT_OUTGOING", nat)), DisableBGPExport: isTrue(get("DISABLE_BGP_EXPORT", "false")),
		NodeSelector: get("NODE_SELECTOR", ""),
	}
	var err error
	if s.IPIPMode, err = encapMode(get("IPIP", "Never")); err != nil {
		return PoolSetting{}, fmt.Errorf("IPIP: %w", err)
	}
	if s.VXLANMode, err = encapMode(get("VXLAN", "Never")); err != nil {
		return PoolSetting{}, fmt.Errorf("VXLAN: %w", err)
	}
	if size := get("BLOCK_SIZE", ""); size != "" {
		if s.BlockSize, err = strconv.Atoi(size); err != nil {
			return PoolSetting{}, fmt.Errorf("BLOCK_SIZE=%s: want a prefix length", size)
		}
	}
	p := PoolSetting{Name: name, Spec: s}
	return p, p.object().Validate()
}

// encapMode takes what upstream's manifests have had over the years.
func encapMode(s string) (api.EncapMode, error) {
	switch strings.ToLower(s) {
	case "", "never", "off", "false":
		return api.EncapNever, nil
	case "always", "on", "true":
		return api.EncapAlways, nil
	case "crosssubnet", "cross-subnet":
		return api.EncapCrossSubnet, nil
	}
	return "", fmt.Errorf("%q: want Always, CrossSubnet or Never", s)
}

func (p PoolSetting) object() *api.IPPool {
	o := &api.IPPool{Meta: api.Named(api.KindIPPool, "", p.Name), Spec: p.Spec}
	o.Default()
	return o
}

// ensurePools creates the default pools in a cluster that has no pool at all.
func ensurePools(ctx context.Context, s store.Store, defaults []PoolSetting) error {
	if len(defaults) == 0 {
		return nil
	}
	have, _, err := s.List(ctx, api.KindIPPool.Name, "")
	if err != nil || len(have) > 0 {
		return err
	}
	var ops []store.Op
	for _, p := range defaults {
		ops = append(ops, store.Create(p.object()))
	}
	if _, err := s.Commit(ctx, ops); err != nil && !errors.Is(err, store.ErrExists) { // another node was first
		return fmt.Errorf("create the default IP pools: %w", err)
	}
	return nil
}
