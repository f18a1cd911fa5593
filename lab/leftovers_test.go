package lab_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/lab/labtest"
	"github.com/calicogo/calico/store/etcd"
)

// datastoreClean says what of a pod is left in the datastore of a lab without pods: an
// endpoint, a handle, or an address that is held. Addresses of tunnels may be.
func datastoreClean(ctx context.Context, l *labtest.Lab) error {
	st, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{"unix://" + filepath.Join(l.Base, "lab", "etcd.sock")}})
	if err != nil {
		return err
	}
	defer st.Close()
	endpoints, _, err := st.List(ctx, api.KindWorkloadEndpoint.Name, "")
	if err != nil {
		return err
	}
	handles, _, err := st.List(ctx, api.KindIPAMHandle.Name, "")
	if err != nil {
		return err
	}
	for _, o := range append(endpoints, handles...) {
		if !strings.Contains(o.GetName(), "tunnel-addr") {
			return fmt.Errorf("left in the datastore: %s %s/%s", api.KindOf(o).Name, o.GetNamespace(), o.GetName())
		}
	}
	return blocksClean(ctx, st)
}

func blocksClean(ctx context.Context, st *etcd.Store) error {
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
			if a.ReleasedAt == nil && (a.HandleID == nil || !strings.Contains(*a.HandleID, "tunnel-addr")) {
				return fmt.Errorf("address %d of block %s is still held: %+v", ordinal, b.Spec.CIDR, a)
			}
		}
	}
	return nil
}
