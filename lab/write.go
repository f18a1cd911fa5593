package lab

import (
	"context"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

func applyObjects(ctx context.Context, st store.Store, objects []api.Object) (string, error) {
	var ops []store.Op
	for _, o := range objects {
		o.Default()
		if err := o.Validate(); err != nil {
			return "", err
		}
		ops = append(ops, store.Put(o))
	}
	_, err := st.Commit(ctx, ops)
	return "", err
}

func deleteObjects(ctx context.Context, st store.Store, objects []api.Object) (string, error) {
	var ops []store.Op
	for _, o := range objects {
		ops = append(ops, store.Delete(store.KeyOf(o), store.AnyRevision))
	}
	_, err := st.Commit(ctx, ops)
	return "", err
}
