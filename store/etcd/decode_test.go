package etcd

import (
	"fmt"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// TestDecode has values decoded in parallel: each must be where it was, with its own error.
func TestDecode(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 63, 64, 65, 127, 1000} {
		all := make([]present, n)
		for i := range all {
			name := fmt.Sprint("t", i)
			body := fmt.Sprintf(`{"kind":"Tier","metadata":{"name":%q},"spec":{"order":%d}}`, name, i)
			if i%10 == 3 {
				body = body[1:]
			}
			all[i] = present{
				keyValue: &keyValue{Value: []byte(body), ModRevision: int64(i + 1)},
				codec:    codecs["Tier"], path: resources + "tiers/" + name, key: store.Key{Kind: "Tier", Name: name},
			}
		}
		decode(all)
		for i, v := range all {
			if i%10 == 3 {
				if v.err == nil || v.object != nil {
					t.Errorf("%d of %d: %v, %v; want an error", i, n, v.object, v.err)
				}
				continue
			}
			o, ok := v.object.(*api.Tier)
			if v.err != nil || !ok || o.Name != v.key.Name || *o.Spec.Order != float64(i) || api.Revision(o) != int64(i+1) {
				t.Errorf("%d of %d: %+v, %v", i, n, v.object, v.err)
			}
		}
	}
}
