package lab_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/lab/labtest"
	"github.com/calicogo/calico/store/etcd"
)

// datastoreClean says what is left in the datastore of pods that are gone, of all or of
// those whose names begin so: an endpoint, a handle, or an address that is held. Addresses
// of tunnels may be.
func datastoreClean(ctx context.Context, l *labtest.Lab, pods ...string) error {
	st, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{"unix://" + filepath.Join(l.Base, "lab", "etcd.sock")}})
	if err != nil {
		return err
	}
	defer st.Close()
	endpoints, _, err := st.List(ctx, api.KindWorkloadEndpoint.Name, "")
	if err != nil {
		return err
	}
	for _, o := range endpoints {
		if pod := o.(*api.WorkloadEndpoint).Spec.Pod; one(pods, pod) {
			return fmt.Errorf("left in the datastore: the endpoint of %s/%s", o.GetNamespace(), pod)
		}
	}
	if err := blocksClean(ctx, st, pods); err != nil || pods != nil {
		return err
	}
	handles, _, err := st.List(ctx, api.KindIPAMHandle.Name, "")
	if err != nil {
		return err
	}
	for _, o := range handles {
		if !strings.Contains(o.GetName(), "tunnel-addr") {
			return fmt.Errorf("left in the datastore: %s %s/%s", api.KindOf(o).Name, o.GetNamespace(), o.GetName())
		}
	}
	return nil
}

// one tells whether the pod is one of those whose names begin so; nil stands for all.
func one(pods []string, pod string) bool {
	return pods == nil || slices.ContainsFunc(pods, func(p string) bool { return strings.HasPrefix(pod, p) })
}

func blocksClean(ctx context.Context, st *etcd.Store, pods []string) error {
	blocks, _, err := st.List(ctx, api.KindIPAMBlock.Name, "")
	if err != nil {
		return err
	}
	for _, o := range blocks {
		b := o.(*api.IPAMBlock)
		for ordinal, at := range b.Spec.Allocations {
			if at == nil {
				continue
			}
			a := b.Spec.Attributes[*at]
			if !one(pods, a.Secondary[api.AttrPod]) {
				continue
			}
			if a.ReleasedAt == nil && (a.HandleID == nil || !strings.Contains(*a.HandleID, "tunnel-addr")) {
				return fmt.Errorf("address %d of block %s is still held: %+v", ordinal, b.Spec.CIDR, a)
			}
		}
	}
	return nil
}
