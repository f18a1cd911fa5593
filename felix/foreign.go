package felix

import (
	"fmt"
	"os"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/nft"
)

// look looks at what others have in the kernel's packet filters: base chains whose policy drops what our
// rules let pass. Their rules are not read, so that it may be that one of them accepts it. Errors are nothing
// to tell of: the rules are in force all the same.
func (r *rules) look() {
	r.warnings, r.traces = nil, true
	if r.nft == nil {
		return
	}
	f, err := r.nft.Foreign()
	if err != nil {
		return
	}
	r.traces = f.IptablesChains
	for _, c := range f.Droppers {
		if r.accepts(c) {
			continue
		}
		r.warnings = append(r.warnings, fmt.Sprintf("%v drops whatever passes its rules, also packets from and to pods that policy allows: "+
			"have it accept what comes from and goes to %s*, or set its policy to accept", c, dataplane.DefaultSettings().InterfacePrefixes[0]))
	}
}

// accepts tells whether our own rules are in the chain, and accept before its policy counts.
func (r *rules) accepts(c nft.BaseChain) bool {
	return r.is.backend == dataplane.Iptables && r.is.iptables.Variant != "legacy" && c.Table == "filter" && c.Name == "FORWARD"
}

// iptablesTraces tells whether iptables may hold something of ours, of either variant. Legacy iptables tells only
// whether it has any tables.
func (r *rules) iptablesTraces() bool {
	if r.traces {
		return true
	}
	for _, file := range []string{"ip_tables_names", "ip6_tables_names"} {
		var names []byte
		_ = netlink.Do(r.ns, func() (err error) {
			names, err = os.ReadFile("/proc/thread-self/net/" + file)
			return err // without the file there are none
		})
		if len(names) > 0 {
			return true
		}
	}
	return false
}
