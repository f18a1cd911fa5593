package iptables

import (
	"slices"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
)

// With iptables-nft, several chains that change shortly after another change wait for packets that met that; a
// pod that comes does not. Legacy iptables shows a packet one table.
func TestChangesOfChainsWait(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		d := newDriver(t, nstest.New(t), v)
		s := sample()
		other := difftest.Web()
		other.Name = "other"
		s.Policies[other] = &dataplane.Policy{ID: other}
		s.Endpoints["cali1"].Ingress[0].Policies = append(s.Endpoints["cali1"].Ingress[0].Policies, other)
		d.Update(s.Delta())
		mustSync(t, d)
		changes := func(change func(*dataplane.Delta)) (waited bool) {
			c := dataplane.NewDelta()
			change(c)
			d.Update(c)
			d.grace.ruled = time.Now().Add(time.Hour) // however long what comes takes
			was := d.grace.ruled
			clear(d.grace.chains)
			edits := pending(t, d)
			d.before(d.families[0], edits...)
			return d.grace.ruled != was
		}
		policies := func(ids ...dataplane.PolicyID) func(*dataplane.Delta) {
			return func(c *dataplane.Delta) {
				for _, id := range ids {
					p := *s.Policies[id]
					p.Ingress = append(slices.Clone(p.Ingress), dataplane.Rule{Action: dataplane.Deny})
					s.Policies[id] = &p
					c.Policies[id] = &p
				}
			}
		}
		if changes(policies(difftest.Web())) {
			t.Error("one chain waits")
		}
		if got := changes(policies(difftest.Web(), other)); got != (v == NFT) {
			t.Errorf("two chains wait: %v", got)
		}
		pod := *s.Endpoints["cali1"]
		pod.Interface = "cali2"
		if changes(func(c *dataplane.Delta) { c.Endpoints["cali2"] = &pod }) {
			t.Error("a pod that comes waits")
		}
		more := pod
		more.Interface = "cali3"
		if got := changes(func(c *dataplane.Delta) { c.Endpoints["cali2"], c.Endpoints["cali3"] = nil, &more }); got != (v == NFT) {
			t.Errorf("one that comes as another goes waits: %v", got)
		}
	})
}

// pending are the edits that IPv4 needs; the kernel is not given them.
func pending(t *testing.T, d *Driver) []*tableEdit {
	t.Helper()
	f := d.families[0]
	ch, err := f.compiler.Changes()
	if err != nil {
		t.Fatal(err)
	}
	touched, err := f.im.apply(f.compiler.Program(), ch)
	if err != nil {
		t.Fatal(err)
	}
	d.nameSets(f, ch.Sets)
	edits, err := d.edits(f, touched)
	if err != nil {
		t.Fatal(err)
	}
	return edits
}
