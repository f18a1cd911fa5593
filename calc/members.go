package calc

import "github.com/calicogo/calico/dataplane"

// liveSet is a set in the state: how many endpoints (pools, nodes) hold each member, and
// which members were touched since the last Delta.
type liveSet struct {
	set
	count   map[dataplane.Member]int
	touched map[dataplane.Member]bool // was it in the set?
	fresh   bool                      // not in a Delta yet
}

func newLiveSet(s set) *liveSet {
	return &liveSet{set: s, count: map[dataplane.Member]int{}, touched: map[dataplane.Member]bool{}, fresh: true}
}

// hold adds n, which may be negative, holders to m.
func (s *liveSet) hold(m dataplane.Member, n int) {
	had := s.count[m]
	if !s.fresh {
		if _, ok := s.touched[m]; !ok {
			s.touched[m] = had > 0
		}
	}
	if had+n == 0 {
		delete(s.count, m)
	} else {
		s.count[m] = had + n
	}
}

// delta is the change since the last call; nil if there is none.
func (s *liveSet) delta() *dataplane.SetDelta {
	d := &dataplane.SetDelta{}
	if s.fresh {
		d.Add = make([]dataplane.Member, 0, len(s.count))
		for m := range s.count {
			d.Add = append(d.Add, m)
		}
		s.fresh = false
		return d
	}
	for m, was := range s.touched {
		switch is := s.count[m] > 0; {
		case is && !was:
			d.Add = append(d.Add, m)
		case was && !is:
			d.Remove = append(d.Remove, m)
		}
	}
	clear(s.touched)
	if len(d.Add)+len(d.Remove) == 0 {
		return nil
	}
	return d
}
