package ctl

import (
	"fmt"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Summary says in one line what became of objects; done is "applied" or the like. The
// words are upstream's: "Successfully applied 2 'NetworkPolicy' resource(s)".
func Summary(done string, results []Result) string {
	if len(results) == 0 {
		return "No resources specified\n"
	}
	keys := make([]store.Key, len(results))
	for i, r := range results {
		keys[i] = r.Key
	}
	return fmt.Sprintf("Successfully %s %d %sresource(s)\n", done, len(results), oneKind(keys))
}

// failure says that v did not do all it should with objects, in upstream's words.
func failure(v verb, objects []api.Object, results []Result, err error) error {
	keys := make([]store.Key, len(objects))
	for i, o := range objects {
		keys[i] = store.KeyOf(o)
	}
	kind, what := oneKind(keys), ""
	switch {
	case len(results) > 0:
		what = fmt.Sprintf("Partial success: %s the first %d out of %d %sresources; hit error", v.done(), len(results), len(objects), kind)
	case len(objects) == 1:
		what = fmt.Sprintf("Failed to %s %sresource", v, kind)
	default:
		what = fmt.Sprintf("Failed to %s any %sresources", v, kind)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// oneKind is the kind that all keys share, quoted and with a space behind it, or nothing.
func oneKind(keys []store.Key) string {
	for _, k := range keys {
		if k.Kind != keys[0].Kind {
			return ""
		}
	}
	return "'" + keys[0].Kind + "' "
}
