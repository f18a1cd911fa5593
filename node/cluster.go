package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// ensureCluster creates what every cluster has and the first node finds missing:
// ClusterInformation and the built-in tiers. What is there and cannot be read stays as it is, and is told of.
func ensureCluster(ctx context.Context, s store.Store, version string) (unreadable, err error) {
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
	var bad []string
	for _, o := range objects {
		err := createMissing(ctx, s, o)
		switch {
		case errors.Is(err, store.ErrInvalid): // somebody's, and for them to mend: the node does without
			bad = append(bad, err.Error())
		case err != nil:
			return nil, fmt.Errorf("create %v: %w", store.KeyOf(o), err)
		}
	}
	if len(bad) > 0 {
		unreadable = fmt.Errorf("%s; the node goes on without: correct or delete it", strings.Join(bad, "; "))
	}
	return unreadable, nil
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
