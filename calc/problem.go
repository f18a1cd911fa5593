package calc

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/calicogo/calico/store"
)

// Problem is a named condition of an object that keeps it, or a part of it, from having
// the effect that it asks for.
type Problem struct {
	Object  store.Key
	Reason  Reason
	Message string // one line: what is wrong, and what happens because of it
}

func (p Problem) String() string {
	return fmt.Sprintf("%v: %s: %s", p.Object, p.Reason, p.Message)
}

// Reason names a sort of Problem, in the manner of a Kubernetes condition.
type Reason string

// Reasons of problems.
const (
	BadSelector      Reason = "BadSelector"      // a selector does not parse
	BadRule          Reason = "BadRule"          // a rule cannot be read
	Unsupported      Reason = "Unsupported"      // a policy or rule uses what is not enforced here
	NoTier           Reason = "NoTier"           // a policy's tier does not exist
	NoProfile        Reason = "NoProfile"        // an endpoint's profile does not exist
	BadConfig        Reason = "BadConfig"        // a parameter's value was refused
	BadAddress       Reason = "BadAddress"       // an address or prefix does not parse
	DuplicateAddress Reason = "DuplicateAddress" // two endpoints of this node hold an address
	DuplicatePod     Reason = "DuplicatePod"     // two attachments claim an interface
	NoNodeAddress    Reason = "NoNodeAddress"    // a node lacks an address that routes need
	NoTunnel         Reason = "NoTunnel"         // this node lacks what its tunnel device needs
	NoPool           Reason = "NoPool"           // no pool contains a block
	OverlappingBlock Reason = "OverlappingBlock" // two blocks share addresses
	OverlappingPool  Reason = "OverlappingPool"  // two pools share addresses
	BadBlock         Reason = "BadBlock"         // a block contradicts itself
)

func compareProblems(a, b Problem) int {
	return cmp.Or(
		cmp.Compare(a.Object.Kind, b.Object.Kind), cmp.Compare(a.Object.Namespace, b.Object.Namespace),
		cmp.Compare(a.Object.Name, b.Object.Name), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
}

// problemList gathers what each source (a step of the graph and a key in it) found.
type problemList map[problemSource][]Problem

type problemSource struct {
	step string
	key  store.Key
}

func (l problemList) set(step string, key store.Key, ps []Problem) {
	if len(ps) == 0 {
		delete(l, problemSource{step, key})
	} else {
		l[problemSource{step, key}] = ps
	}
}

func (l problemList) sorted() []Problem {
	var all []Problem
	for _, ps := range l {
		all = append(all, ps...)
	}
	slices.SortFunc(all, compareProblems)
	return slices.Compact(all)
}
