package calc

import "github.com/calicogo/calico/store"

// policyItem is a policy in the index of governors, which goes by its address, and in the
// state.
type policyItem struct {
	key      store.Key
	now, was *policy // what ingest made of it; was only until settled
	ruling   *ruling // as last given out; nil: not in use
	governs  int32   // local endpoints
	dirty    bool    // on the list of the table
	touched  bool    // on that of ruleTables
}

// policyTable holds the stored policies.
type policyTable struct {
	rows  map[store.Key]*policyItem
	dirty []*policyItem
}

// put notes what the policy is now; nil: there is none.
func (t *policyTable) put(k store.Key, p *policy) {
	i := t.rows[k]
	if i == nil {
		if p == nil {
			return
		}
		i = &policyItem{key: k}
		t.rows[k] = i
	}
	if !i.dirty {
		i.dirty, i.was = true, i.now
		t.dirty = append(t.dirty, i)
	}
	i.now = p
}

// settled forgets what was put.
func (t *policyTable) settled() {
	for _, i := range t.dirty {
		if i.was, i.dirty = nil, false; i.now == nil {
			delete(t.rows, i.key)
		}
	}
	t.dirty = nil
}
