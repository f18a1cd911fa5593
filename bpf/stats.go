package bpf

import "fmt"

// Stats are counts since the maps were made, which a restart of the agent survives. Bytes
// are those of inner packets. All counts but Packets and Bytes are of packets dropped.
type Stats struct {
	Out struct {
		Packets, Bytes uint64
		NotIPv4        uint64 // no IPv4 packet
		NoRoute        uint64 // no route goes there
		NoNode         uint64 // the route's gateway is no node's address
		NoWay          uint64 // no route goes to the node's address
		Nested         uint64 // a tunnel's already, and yet to be cut into segments
		Failed         uint64 // the kernel refused to make room, or nothing is configured
	}
	In struct {
		Packets, Bytes uint64
		Foreign        uint64 // the outer source is no node's address
		Fragment       uint64 // the outer packet is a fragment
		Malformed      uint64 // an outer header with options or a wrong checksum or length, or no IPv4 packet inside
		Congested      uint64 // marked congested outside, and not capable of that inside (RFC 6040)
		Failed         uint64 // the kernel refused to take the header away
	}
}

// Dropped is the number of packets dropped.
func (s *Stats) Dropped() uint64 {
	o, i := s.Out, s.In
	return o.NotIPv4 + o.NoRoute + o.NoNode + o.NoWay + o.Nested + o.Failed +
		i.Foreign + i.Fragment + i.Malformed + i.Congested + i.Failed
}

// counters are the places of the counts, in the order that ipip.c gives them.
func (s *Stats) counters() []*uint64 {
	o, i := &s.Out, &s.In
	return []*uint64{
		&o.Packets, &o.Bytes, &i.Packets, &i.Bytes,
		&o.NotIPv4, &o.NoRoute, &o.NoNode, &o.NoWay, &o.Nested, &o.Failed,
		&i.Foreign, &i.Fragment, &i.Malformed, &i.Congested, &i.Failed,
	}
}

// Stats reads the counts.
func (e *Encapsulator) Stats() (Stats, error) {
	var s Stats
	for n, to := range s.counters() {
		var each []uint64 // by CPU
		if err := e.objs.IpipStats.Lookup(uint32(n), &each); err != nil {
			return Stats{}, fmt.Errorf("read the counts of the eBPF programs: %w", err)
		}
		for _, v := range each {
			*to += v
		}
	}
	return s, nil
}
