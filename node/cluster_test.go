package node

import (
	"strings"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/memory"
)

func TestEnsureClusterCreatesWhatIsMissingOnly(t *testing.T) {
	s := memory.New()
	order := 5.0
	own := &api.Tier{Meta: api.Named(api.KindTier, "", api.KubeAdminTier), Spec: api.TierSpec{Order: &order, DefaultAction: api.Deny}}
	if _, err := s.Commit(t.Context(), []store.Op{store.Create(own)}); err != nil {
		t.Fatal(err)
	}
	var first store.Revision
	for i := range 2 {
		if err := ensureCluster(t.Context(), s, "v1"); err != nil {
			t.Fatal(err)
		}
		tiers, rev, err := s.List(t.Context(), api.KindTier.Name, "")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, o := range tiers {
			names = append(names, o.GetName())
		}
		if got := strings.Join(names, " "); got != "default kube-admin kube-baseline" {
			t.Errorf("tiers %s", got)
		}
		if i == 0 {
			first = rev
		} else if rev != first {
			t.Error("the second start wrote something")
		}
	}
	o, err := s.Get(t.Context(), store.KeyOf(own))
	if err != nil || *o.(*api.Tier).Spec.Order != order {
		t.Errorf("a tier that was there: %+v, %v", o, err)
	}
	o, err = s.Get(t.Context(), clusterKey)
	if err != nil || o.(*api.ClusterInformation).Spec.CalicoVersion != "v1" || o.(*api.ClusterInformation).Spec.ClusterGUID == "" {
		t.Errorf("ClusterInformation %+v, %v", o, err)
	}
}
