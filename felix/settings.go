package felix

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/calc"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/store"
)

// settings are the FelixConfigurations that count for a node. A value that is not allowed does not take the place
// of the one before it: a slip of the pen is no reason to go to another backend, or to give up a prefix of
// interfaces. An agent that starts knows of none before, and takes it for not set.
type settings struct {
	of map[store.Key]*setting
}

type setting struct {
	good     api.FelixConfigurationSpec // as they were last allowed
	problems []calc.Problem
}

func newSettings(node string) settings {
	s := settings{of: map[store.Key]*setting{}}
	for _, name := range []string{"default", "node." + node} {
		s.of[store.Key{Kind: api.KindFelixConfiguration.Name, Name: name}] = &setting{}
	}
	return s
}

// sound returns the object, or if it is a FelixConfiguration of which some values are not allowed, one that has those
// of before in their place. nil stays nil.
func (s settings) sound(k store.Key, o api.Object) api.Object {
	x := s.of[k]
	if x == nil {
		return o
	}
	c, ok := o.(*api.FelixConfiguration)
	if !ok { // it is gone
		*x = setting{}
		return o
	}
	good, problems := api.FelixConfigurationSpec{}, []calc.Problem(nil)
	for _, field := range slices.Sorted(maps.Keys(c.Spec)) {
		one := &api.FelixConfiguration{Meta: c.Meta, Spec: api.FelixConfigurationSpec{field: c.Spec[field]}}
		errs := config.FromResource(one).Errors()
		if len(errs) == 0 {
			good[field] = c.Spec[field]
			continue
		}
		what := "it counts as not set"
		if was, ok := x.good[field]; ok {
			good[field], what = was, fmt.Sprintf("%s, as it was, stands", was)
		}
		problems = append(problems, calc.Problem{Object: k, Reason: calc.BadConfig, Message: fmt.Sprintf("%v; %s", errs[0], what)})
	}
	x.good, x.problems = good, problems
	if len(problems) == 0 {
		return o
	}
	return &api.FelixConfiguration{Meta: c.Meta, Spec: good}
}

// problems says which values are not allowed.
func (s settings) problems() (out []calc.Problem) {
	for _, k := range slices.SortedFunc(maps.Keys(s.of), func(a, b store.Key) int { return strings.Compare(a.Name, b.Name) }) {
		out = append(out, s.of[k].problems...)
	}
	return out
}
