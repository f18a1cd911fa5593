package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// Options say what a lab is made of.
type Options struct {
	Nodes     int          // 1 to 50
	Encap     string       // one of Encaps: of the IPv4 pool, and where it can be of the IPv6 pool
	Pool      netip.Prefix // of the pods
	Pool6     netip.Prefix // the zero value: the lab has no IPv6
	BlockSize int          // prefix length of the IPv4 blocks, 20 to 32
	Backend   string       // one of Backends: what holds the rules when the lab begins
	// NoAgents leaves the nodes without `calico node`: bare namespaces on one link.
	NoAgents bool
}

// DefaultOptions are those of `calico lab up` without flags. The encapsulation is that of
// upstream's manifest.
func DefaultOptions() Options {
	return Options{Nodes: 3, Encap: EncapIPIP, Pool: netip.MustParsePrefix("10.10.0.0/16"), BlockSize: 26, Backend: BackendNFT}
}

// Values of [Options.Encap]. IPIP carries IPv4 only: with it IPv6 pods' packets travel bare.
const (
	EncapIPIP  = "ipip"
	EncapVXLAN = "vxlan"
	EncapNone  = "none"
)

// Encaps are all of them, the default first.
var Encaps = []string{EncapIPIP, EncapVXLAN, EncapNone}

// Values of [Options.Backend].
const (
	BackendNFT            = "nft"
	BackendIptables       = "iptables" // its variant that stands on nftables
	BackendIptablesLegacy = "iptables-legacy"
)

// Backends are all of them, the default first.
var Backends = []string{BackendNFT, BackendIptables, BackendIptablesLegacy}

const maxNodes = 50

// Validate says what is wrong with o.
func (o Options) Validate() error {
	if o.Nodes < 1 || o.Nodes > maxNodes {
		return fmt.Errorf("--nodes %d: a lab has 1 to %d nodes", o.Nodes, maxNodes)
	}
	if !slices.Contains(Encaps, o.Encap) {
		return fmt.Errorf("--encap %q: want ipip, vxlan or none", o.Encap)
	}
	if !slices.Contains(Backends, o.Backend) {
		return fmt.Errorf("--backend %q: want nft, iptables or iptables-legacy", o.Backend)
	}
	if o.BlockSize < 20 || o.BlockSize > 32 {
		return fmt.Errorf("--block-size %d: want a prefix length from 20 to 32", o.BlockSize)
	}
	if err := checkPool("--pool", o.Pool, true); err != nil {
		return err
	}
	if o.Pool.Bits() > o.BlockSize {
		return fmt.Errorf("--pool %v is smaller than one block of --block-size %d", o.Pool, o.BlockSize)
	}
	if o.Encap != EncapNone && o.Nodes > 1<<(32-o.Pool.Bits()) {
		return fmt.Errorf("--pool %v has fewer addresses than --nodes %d need for their tunnels", o.Pool, o.Nodes)
	}
	if !o.Pool6.IsValid() {
		return nil
	}
	if err := checkPool("--pool6", o.Pool6, false); err != nil {
		return err
	}
	if o.Pool6.Bits() > blockSize6 {
		return fmt.Errorf("--pool6 %v is smaller than one block of /%d", o.Pool6, blockSize6)
	}
	return nil
}

const blockSize6 = 122

func checkPool(flag string, p netip.Prefix, v4 bool) error {
	family := "IPv6"
	if v4 {
		family = "IPv4"
	}
	switch {
	case !p.IsValid():
		return fmt.Errorf("%s: want an %s prefix such as 10.10.0.0/16", flag, family)
	case p.Addr().Is4() != v4:
		return fmt.Errorf("%s %v: want an %s prefix", flag, p, family)
	case p != p.Masked():
		return fmt.Errorf("%s %v has bits beyond its length: did you mean %v?", flag, p, p.Masked())
	}
	for _, r := range notForPods {
		if r.Overlaps(p) {
			return fmt.Errorf("%s %v: pods can have no address of %v", flag, p, r)
		}
	}
	return nil
}

// notForPods are this host, loopback, link-local, multicast and reserved (RFC 6890, RFC 4291).
var notForPods = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/8"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("lab: " + err.Error()) // plain data
	}
	return string(b)
}
