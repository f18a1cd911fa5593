package calc

import (
	"slices"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/store"
)

// configurations are the FelixConfigurations that count, by name.
func configurations(all []*api.FelixConfiguration) map[string]*api.FelixConfiguration {
	m := map[string]*api.FelixConfiguration{}
	for _, c := range all {
		m[c.Name] = c
	}
	return m
}

// resolve merges the local layers, then the node's own in the datastore, then the
// cluster's. Each wins over those after it.
func resolve(node string, local []config.Layer, stored map[string]*api.FelixConfiguration) (config.Felix, []Problem) {
	layers := slices.Clone(local)
	for _, name := range []string{"node." + node, "default"} {
		if c := stored[name]; c != nil {
			layers = append(layers, config.FromResource(c))
		}
	}
	felix, errs := config.Resolve(layers...)
	var ps []Problem
	for _, err := range errs {
		ps = append(ps, Problem{store.Key{Kind: "FelixConfiguration", Name: "default"}, BadConfig, err.Error()})
	}
	return felix, ps
}

func fabricConfigOf(c config.Felix) fabricConfig {
	all := c.ProgramClusterRoutes == "Enabled"
	return fabricConfig{
		ipv6:          c.Ipv6Support,
		ipipRoutes:    all || c.ProgramClusterRoutes == "EnabledIPIPOnly",
		noEncapRoutes: all || c.ProgramClusterRoutes == "EnabledNoEncapOnly",
		vxlan:         switchOf(c.VXLANEnabled),
		ipip:          switchOf(c.IPIPEnabled),
		vni:           c.VXLANVNI,
		port:          c.VXLANPort,
		mtu:           c.VXLANMTU,
		mtu6:          c.VXLANMTUV6,
		ipipMTU:       c.IPIPMTU,
	}
}

// enabled says whether an encapsulation is to be there: as the pools have it, or as the
// configuration says whatever they have.
type enabled uint8

const (
	asPools enabled = iota
	on
	off
)

func switchOf(b *bool) enabled {
	switch {
	case b == nil:
		return asPools
	case *b:
		return on
	}
	return off
}
