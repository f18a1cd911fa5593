package difftest

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"

	"github.com/calicogo/calico/iptables"
	"github.com/calicogo/calico/netlink"
)

func init() {
	for _, v := range []iptables.Variant{iptables.NFT, iptables.Legacy} {
		backends = append(backends, backend{
			name: "iptables-" + v.String(), open: openIptables(v), quiet: quietIptables,
			meddle: meddleIptables(v), repaired: func(d driver) bool { return d.(*iptables.Driver).Stats().Repairs >= 12 },
		})
	}
}

// meddleIptables adds a rule to one of our chains that does nothing.
func meddleIptables(v iptables.Variant) func(int, driver, *Gen) error {
	return func(ns int, _ driver, g *Gen) error {
		program := Of(g, "iptables-", "ip6tables-") + v.String()
		return netlink.Do(ns, func() error {
			out, err := exec.Command(program, "-w", "10", "-I", "cali-FORWARD", "-p", "254").CombinedOutput()
			if err != nil && !bytes.Contains(out, []byte("No chain")) { // IPv6 may be off
				return fmt.Errorf("%s: %w: %s", program, err, out)
			}
			return nil
		})
	}
}

func openIptables(v iptables.Variant) func(int) (driver, error) {
	return func(ns int) (driver, error) {
		return iptables.New(ns, iptables.Config{LogGroup: ruleGroup, Variant: v})
	}
}

func quietIptables(d driver) error {
	stats := d.(*iptables.Driver).Stats
	before := stats()
	d.Resync()
	if err := d.Sync(context.Background()); err != nil {
		return err
	}
	after := stats()
	if after.Restores != before.Restores || after.SetRuns != before.SetRuns || after.Repairs != before.Repairs || after.Reads == before.Reads {
		return fmt.Errorf("sync after Resync: from %+v to %+v, want reads alone", before, after)
	}
	return nil
}
