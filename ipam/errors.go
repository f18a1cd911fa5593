package ipam

import (
	"errors"
	"fmt"
	"strings"

	"github.com/calicogo/calico/dataplane"
)

// Errors that callers branch on; see errors.Is.
var (
	ErrNoPool   = errors.New("no usable IP pool")
	ErrPoolFull = errors.New("no free address")
	ErrTaken    = errors.New("address already assigned")
	ErrInvalid  = errors.New("invalid request")
)

// PoolFullError says that no pool asked has an address to give, and why. It is an
// [ErrPoolFull].
type PoolFullError struct {
	Node   string
	Family dataplane.Family
	Pools  []PoolUse
	Limits []string // what kept the node from claiming or borrowing, if anything did
}

// PoolUse counts what a pool's blocks hold.
type PoolUse struct {
	Name, CIDR string
	Blocks     int // claimed, by whatever node
	Addresses  int // in those blocks
	InUse      int // of Addresses; the others rest, are free, or cannot be read
}

func (e *PoolFullError) Error() string {
	var pools []string
	for _, p := range e.Pools {
		pools = append(pools, fmt.Sprintf("pool %s (%s) has %d blocks, %d of %d addresses in use",
			p.Name, p.CIDR, p.Blocks, p.InUse, p.Addresses))
	}
	s := fmt.Sprintf("%v: no %v address for node %s: %s", ErrPoolFull, e.Family, e.Node, strings.Join(pools, "; "))
	if len(e.Limits) > 0 {
		s += " (" + strings.Join(e.Limits, "; ") + ")"
	}
	return s + "; add a pool or free addresses"
}

func (e *PoolFullError) Unwrap() error { return ErrPoolFull }
