package node

import (
	"context"
	"errors"
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
		if unreadable, err := ensureCluster(t.Context(), s, "v1"); err != nil || unreadable != nil {
			t.Fatal(unreadable, err)
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

// unreadableStore has an object that does not decode.
type unreadableStore struct {
	store.Store
	key store.Key
}

func (s unreadableStore) Get(ctx context.Context, k store.Key) (api.Object, error) {
	if k == s.key {
		return nil, &store.OpError{Key: k, Err: store.ErrInvalid}
	}
	return s.Store.Get(ctx, k)
}

func (s unreadableStore) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	for _, op := range ops {
		if store.KeyOf(op.Object) == s.key {
			return 0, errors.New("it would be written over")
		}
	}
	return s.Store.Commit(ctx, ops)
}

// A built-in tier that does not decode is told of, is not written over, and keeps no other from being made.
func TestEnsureClusterGoesOnWithoutWhatIsUnreadable(t *testing.T) {
	m := memory.New()
	s := unreadableStore{m, store.Key{Kind: api.KindTier.Name, Name: "default"}}
	unreadable, err := ensureCluster(t.Context(), s, "v1")
	if err != nil || unreadable == nil || !strings.Contains(unreadable.Error(), "Tier(default)") || !strings.Contains(unreadable.Error(), "goes on without") {
		t.Errorf("unreadable: %v, error: %v", unreadable, err)
	}
	if tiers, _, err := m.List(t.Context(), api.KindTier.Name, ""); err != nil || len(tiers) != 2 {
		t.Errorf("%d other tiers, want 2: %v", len(tiers), err)
	}
	if _, err := m.Get(t.Context(), clusterKey); err != nil {
		t.Error(err)
	}
}
