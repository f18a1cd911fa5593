package main

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/calicogo/calico/lab"
)

// optionFlags are the flags that say what a lab is made of.
type optionFlags struct {
	o           lab.Options
	pool, pool6 string
}

func (f *optionFlags) register(c *cobra.Command) {
	f.o = lab.DefaultOptions()
	c.Flags().IntVar(&f.o.Nodes, "nodes", f.o.Nodes, "number of nodes, 1 to 50")
	c.Flags().StringVar(&f.o.Encap, "encap", f.o.Encap, "how packets travel between nodes: ipip (IPv4 only), vxlan or none")
	c.Flags().StringVar(&f.pool, "pool", f.o.Pool.String(), "addresses of the pods")
	c.Flags().StringVar(&f.pool6, "pool6", "", "IPv6 addresses of the pods (default: no IPv6)")
	c.Flags().IntVar(&f.o.BlockSize, "block-size", f.o.BlockSize, "prefix length of the blocks that a node takes from the pool")
	c.Flags().StringVar(&f.o.Backend, "backend", f.o.Backend, "what holds the nodes' rules: nft, iptables or iptables-legacy; FelixConfiguration changes it later")
	c.Flags().BoolVar(&f.o.NoAgents, "no-agents", false, "bare nodes")
	c.Flags().MarkHidden("no-agents")
}

func (f *optionFlags) options() (lab.Options, error) {
	var err error
	if f.o.Pool, err = netip.ParsePrefix(f.pool); err != nil {
		return f.o, fmt.Errorf("--pool %q: want a prefix such as 10.10.0.0/16", f.pool)
	}
	if f.pool6 != "" {
		if f.o.Pool6, err = netip.ParsePrefix(f.pool6); err != nil {
			return f.o, fmt.Errorf("--pool6 %q: want a prefix such as fd00:10:10::/48", f.pool6)
		}
	}
	return f.o, f.o.Validate()
}
