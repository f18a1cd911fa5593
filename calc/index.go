package calc

import (
	"maps"
	"slices"

	"github.com/calicogo/calico/selector"
)

type index[S, I comparable] struct {
	f       func(S, I, bool)
	sels    map[S]*selector.Selector
	items   map[I]idxItem
	parents map[string]map[string]string
	match   map[S]map[I]bool
}

type idxItem struct {
	labels  map[string]string
	parents []string
}

func newIndex[S, I comparable](f func(S, I, bool)) *index[S, I] {
	return &index[S, I]{f, map[S]*selector.Selector{}, map[I]idxItem{}, map[string]map[string]string{}, map[S]map[I]bool{}}
}

func (x *index[S, I]) eval(s S, i I) {
	is := false
	if sel, ok := x.sels[s]; ok {
		if it, ok := x.items[i]; ok {
			all := selector.Map{}
			for _, p := range slices.Backward(it.parents) {
				maps.Copy(all, x.parents[p])
			}
			maps.Copy(all, it.labels)
			is = sel.Matches(all)
		}
	}
	if x.match[s] == nil {
		x.match[s] = map[I]bool{}
	}
	if x.match[s][i] != is {
		if is {
			x.match[s][i] = true
		} else {
			delete(x.match[s], i)
		}
		x.f(s, i, is)
	}
}

func (x *index[S, I]) setItem(i I, labels map[string]string, parents []string) {
	x.items[i] = idxItem{labels, parents}
	for s := range x.sels {
		x.eval(s, i)
	}
}

func (x *index[S, I]) deleteItem(i I) {
	delete(x.items, i)
	for s := range x.sels {
		x.eval(s, i)
	}
}

func (x *index[S, I]) setParent(p string, labels map[string]string) {
	x.parents[p] = labels
	for i := range x.items {
		for s := range x.sels {
			x.eval(s, i)
		}
	}
}

func (x *index[S, I]) addSelector(s S, sel *selector.Selector) {
	x.sels[s] = sel
	for i := range x.items {
		x.eval(s, i)
	}
}

func (x *index[S, I]) removeSelector(s S) {
	delete(x.sels, s)
	for i := range x.items {
		x.eval(s, i)
	}
	delete(x.match, s)
}
