package lab

import (
	"context"
	"fmt"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/ctl"
	"github.com/calicogo/calico/store"
)

// Kubernetes' own objects come by `apply` here, so that their names are no one else's.
var writeOptions = ctl.Options{Reserved: true, SkipNotExists: true}

func applyObjects(ctx context.Context, st store.Store, objects []api.Object) (string, error) {
	results, err := ctl.Apply(ctx, st, objects, writeOptions)
	return describe(results), err
}

func deleteObjects(ctx context.Context, st store.Store, objects []api.Object) (string, error) {
	results, err := ctl.Delete(ctx, st, objects, writeOptions)
	return describe(results), err
}

func describe(results []ctl.Result) string {
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintf(&b, "%v %s\n", r.Key, r.Change)
	}
	return b.String()
}
