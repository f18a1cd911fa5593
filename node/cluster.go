package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// ensureCluster creates what every cluster has and the first node finds missing:
// ClusterInformation and the built-in tiers.
func ensureCluster(ctx context.Context, s store.Store, version string) error {
	guid := make([]byte, 16)
	rand.Read(guid) // never fails
	yes := true
	objects := []api.Object{&api.ClusterInformation{
		Meta: api.Named(api.KindClusterInformation, "", "default"),
		Spec: api.ClusterInformationSpec{ClusterGUID: hex.EncodeToString(guid), CalicoVersion: version, DatastoreReady: &yes},
	}}
	for _, t := range api.BuiltInTiers() {
		objects = append(objects, t)
	}
	for _, o := range objects {
		if err := createMissing(ctx, s, o); err != nil {
			return fmt.Errorf("create %v: %w", store.KeyOf(o), err)
		}
	}
	return nil
}

// createMissing creates o unless there is one; that another node was first is no error.
func createMissing(ctx context.Context, s store.Store, o api.Object) error {
	if _, err := s.Get(ctx, store.KeyOf(o)); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if _, err := s.Commit(ctx, []store.Op{store.Create(o)}); !errors.Is(err, store.ErrExists) {
		return err
	}
	return nil
}
