package dataplane

import (
	"context"
	"maps"
	"net/netip"
)

// Delta is a change of State: what is named in it is to be as it says; a nil value means
// that there is none. The sum of a machine's deltas from the empty State is the State.
type Delta struct {
	Endpoints map[Interface]*Endpoint
	Policies  map[PolicyID]*Policy
	Sets      map[SetID]*SetDelta
	Routes    map[netip.Prefix]*Route
	Tunnels   map[string]*Tunnel
	VTEPs     map[VTEPKey]*VTEP
	Settings  *Settings // nil: as before
}

// SetDelta changes the members of a set. A nil SetDelta removes the set.
type SetDelta struct {
	Add, Remove []Member // disjoint
}

// NewDelta returns an empty Delta whose maps can be written to.
func NewDelta() *Delta {
	return &Delta{
		Endpoints: map[Interface]*Endpoint{}, Policies: map[PolicyID]*Policy{}, Sets: map[SetID]*SetDelta{},
		Routes: map[netip.Prefix]*Route{}, Tunnels: map[string]*Tunnel{}, VTEPs: map[VTEPKey]*VTEP{},
	}
}

// Empty tells whether d changes nothing.
func (d *Delta) Empty() bool {
	return len(d.Endpoints)+len(d.Policies)+len(d.Sets)+len(d.Routes)+len(d.Tunnels)+len(d.VTEPs) == 0 && d.Settings == nil
}

// Apply changes s by d.
func (s *State) Apply(d *Delta) {
	for k, v := range d.Endpoints {
		put(s.Endpoints, k, v, v == nil)
	}
	for k, v := range d.Policies {
		put(s.Policies, k, v, v == nil)
	}
	for k, v := range d.Sets {
		s.applySet(k, v)
	}
	putAll(s.Routes, d.Routes)
	putAll(s.Tunnels, d.Tunnels)
	putAll(s.VTEPs, d.VTEPs)
	if d.Settings != nil {
		s.Settings = *d.Settings
	}
}

func (s *State) applySet(id SetID, d *SetDelta) {
	if d == nil {
		delete(s.Sets, id)
		return
	}
	m := s.Sets[id]
	if m == nil {
		m = Members{}
		s.Sets[id] = m
	}
	for _, x := range d.Add {
		m[x] = struct{}{}
	}
	for _, x := range d.Remove {
		delete(m, x)
	}
}

func put[K comparable, V any](m map[K]V, k K, v V, gone bool) {
	if gone {
		delete(m, k)
	} else {
		m[k] = v
	}
}

func putAll[K comparable, V any](m map[K]V, d map[K]*V) {
	for k, v := range d {
		if v == nil {
			delete(m, k)
		} else {
			m[k] = *v
		}
	}
}

// Delta returns the change from the empty State to s.
func (s *State) Delta() *Delta {
	d := NewDelta()
	maps.Copy(d.Endpoints, s.Endpoints)
	maps.Copy(d.Policies, s.Policies)
	for id, m := range s.Sets {
		sd := &SetDelta{}
		for x := range m {
			sd.Add = append(sd.Add, x)
		}
		d.Sets[id] = sd
	}
	refAll(d.Routes, s.Routes)
	refAll(d.Tunnels, s.Tunnels)
	refAll(d.VTEPs, s.VTEPs)
	set := s.Settings
	d.Settings = &set
	return d
}

func refAll[K comparable, V any](d map[K]*V, m map[K]V) {
	for k, v := range m {
		d[k] = &v
	}
}

// Driver brings one part of the kernel to the state it was told.
type Driver interface {
	// Update notes a change of the wanted state. It does no I/O and cannot fail.
	Update(*Delta)
	// Sync brings the kernel there. After an error the kernel is as before or, where
	// it knows no transactions, nearer to the wanted state; Sync may be called again.
	Sync(context.Context) error
	// Resync makes the next Sync read the kernel first and repair what differs.
	Resync()
}
