package difftest

import (
	"context"
	"fmt"

	"github.com/calicogo/calico/iptables"
)

func init() {
	backends = append(backends,
		backend{"iptables-nft", openIptables(iptables.NFT), quietIptables, false},
		backend{"iptables-legacy", openIptables(iptables.Legacy), quietIptables, false})
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
