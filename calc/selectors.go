package calc

import (
	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/selector"
)

// namespaceSelector parses a selector of namespaces. Endpoints carry the labels of their
// namespace with a prefix, so it becomes a selector of endpoints: all() means to be in
// some namespace, global() to be in none.
func namespaceSelector(s string) (*selector.Selector, error) {
	sel, err := selector.Parse(s)
	if err != nil {
		return nil, err
	}
	inSome := selector.Has(api.LabelNamespace)
	return sel.WithPrefix(api.NamespaceLabelPrefix).Replace(inSome, selector.Not(inSome)), nil
}

// serviceAccountSelector is the like for service accounts.
func serviceAccountSelector(s string) (*selector.Selector, error) {
	sel, err := selector.Parse(s)
	if err != nil {
		return nil, err
	}
	return sel.WithPrefix(api.ServiceAccountPrefix).Replace(selector.Has(api.LabelServiceAccount), nil), nil
}
