package kubeconv

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/calicogo/calico/api"
)

// podSelector selects pods, and nothing that is not Kubernetes'. A nil selector selects
// all pods, as an empty one does.
func podSelector(s *metav1.LabelSelector) (string, error) {
	terms, err := terms(s)
	if err != nil {
		return "", fmt.Errorf("podSelector: %w", err)
	}
	pods := fmt.Sprintf("%s == 'k8s'", api.LabelOrchestrator)
	return strings.Join(append([]string{pods}, terms...), " && "), nil
}

// namespaceSelector selects namespaces: none is given if s is nil, all of them if it is
// empty.
func namespaceSelector(s *metav1.LabelSelector) (string, error) {
	if s == nil {
		return "", nil
	}
	terms, err := terms(s)
	if err != nil {
		return "", fmt.Errorf("namespaceSelector: %w", err)
	}
	if len(terms) == 0 {
		return "all()", nil
	}
	return strings.Join(terms, " && "), nil
}

// terms writes each requirement of s in Calico's language, labels first, in order.
func terms(s *metav1.LabelSelector) ([]string, error) {
	if s == nil {
		return nil, nil
	}
	var all []string
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		if err := checkLabel(k, s.MatchLabels[k]); err != nil {
			return nil, fmt.Errorf("matchLabels: %w", err)
		}
		all = append(all, fmt.Sprintf("%s == '%s'", k, s.MatchLabels[k]))
	}
	for i, r := range s.MatchExpressions {
		t, err := requirement(r)
		if err != nil {
			return nil, fmt.Errorf("matchExpressions[%d]: %w", i, err)
		}
		all = append(all, t)
	}
	return all, nil
}

func requirement(r metav1.LabelSelectorRequirement) (string, error) {
	if err := checkLabel(r.Key, r.Values...); err != nil {
		return "", err
	}
	switch r.Operator {
	case metav1.LabelSelectorOpIn:
		return set(r, "in")
	case metav1.LabelSelectorOpNotIn:
		return set(r, "not in")
	case metav1.LabelSelectorOpExists:
		return presence(r, "has")
	case metav1.LabelSelectorOpDoesNotExist:
		return presence(r, "!has")
	}
	return "", fmt.Errorf("operator %q: must be In, NotIn, Exists or DoesNotExist", r.Operator)
}

func set(r metav1.LabelSelectorRequirement, word string) (string, error) {
	if len(r.Values) == 0 {
		return "", fmt.Errorf("operator %s needs values", r.Operator)
	}
	return fmt.Sprintf("%s %s { '%s' }", r.Key, word, strings.Join(r.Values, "', '")), nil
}

func presence(r metav1.LabelSelectorRequirement, word string) (string, error) {
	if len(r.Values) > 0 {
		return "", fmt.Errorf("operator %s takes no values", r.Operator)
	}
	return fmt.Sprintf("%s(%s)", word, r.Key), nil
}

// checkLabel holds labels to Kubernetes' rules. Nothing that could leave a quoted string
// of the selector language passes them.
func checkLabel(key string, values ...string) error {
	if msgs := validation.IsQualifiedName(key); len(msgs) > 0 {
		return fmt.Errorf("label name %q: %s", key, msgs[0])
	}
	for _, v := range values {
		if msgs := validation.IsValidLabelValue(v); len(msgs) > 0 {
			return fmt.Errorf("value %q of label %s: %s", v, key, msgs[0])
		}
	}
	return nil
}
