package nft

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
)

// crowd returns n members from 20.0.0.0 on, of one kind.
func crowd(kind string, n int) []dataplane.Member {
	out := make([]dataplane.Member, n)
	for i := range out {
		a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x14000000+uint32(i)*4)))
		out[i].Prefix = netip.PrefixFrom(a, 32)
		switch kind {
		case "prefixes":
			out[i].Prefix = netip.PrefixFrom(a, 31)
		case "triples":
			out[i].Protocol, out[i].Port = dataplane.TCP, 80
		}
	}
	return out
}

// user returns a state in which a policy uses a set of the kind.
func user(kind string) (*dataplane.State, dataplane.SetID) {
	s := sample()
	if kind == "triples" {
		return s, "n:http"
	}
	return s, "s:abc"
}

func setDelta(id dataplane.SetID, add, remove []dataplane.Member) *dataplane.Delta {
	d := dataplane.NewDelta()
	d.Sets[id] = &dataplane.SetDelta{Add: add, Remove: remove}
	return d
}

// A transaction that makes a hash table a thousand times as large is taken whole, and so is
// one that empties it; what is read meanwhile, while the kernel moves the elements to another
// table, is all of it.
func TestHashTableGrows(t *testing.T) {
	const n = 80_000
	members := crowd("addresses", n)
	d := newDriver(t, nstest.New(t))
	s, id := user("addresses")
	d.Update(s.Delta())
	mustSync(t, d)
	for _, delta := range []*dataplane.Delta{setDelta(id, members, nil), setDelta(id, nil, members[:n-100])} {
		d.Update(delta)
		mustSync(t, d)
		quiet(t, d)
	}
}

// BenchmarkSetMember changes one member of a set; "encoded" does all but to send it.
func BenchmarkSetMember(b *testing.B) {
	for _, kind := range []string{"addresses", "triples", "prefixes"} {
		for _, n := range []int{100, 10_000, 100_000} {
			members := crowd(kind, n+1)
			prepare := func(b *testing.B) (*Driver, dataplane.SetID) {
				d, err := New(nstest.New(b), Config{LogGroup: 1})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(d.Close)
				s, id := user(kind)
				d.Update(s.Delta())
				d.Update(setDelta(id, members[:n], nil))
				if err := d.Sync(context.Background()); err != nil {
					b.Fatal(err)
				}
				return d, id
			}
			change := func(d *Driver, id dataplane.SetID, i int) {
				if i%2 == 0 {
					d.Update(setDelta(id, members[n:], nil))
				} else {
					d.Update(setDelta(id, nil, members[n:]))
				}
			}
			b.Run(fmt.Sprint(kind, "/", n, "/sent"), func(b *testing.B) {
				d, id := prepare(b)
				b.ReportAllocs()
				kernelTime(b, func() {
					for i := 0; b.Loop(); i++ {
						change(d, id, i)
						if err := d.Sync(context.Background()); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
			b.Run(fmt.Sprint(kind, "/", n, "/encoded"), func(b *testing.B) {
				d, id := prepare(b)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					change(d, id, i)
					encode(b, d)
				}
			})
		}
	}
}

// kernelTime reports the processor time that the kernel takes an iteration; on a busy
// machine it says more than the clock.
func kernelTime(b *testing.B, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	used := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
			b.Fatal(err)
		}
		return u.Stime.Nano()
	}
	was := used()
	f()
	b.ReportMetric(float64(used()-was)/float64(b.N), "kernel-ns/op")
}

// encode does what Sync does but for sending.
func encode(b *testing.B, d *Driver) {
	for _, t := range d.tables {
		ch, err := t.compiler.Changes()
		if err != nil {
			b.Fatal(err)
		}
		for _, step := range ch.Steps() {
			batch := newBatch(t.enc)
			batch.apply(step)
			if _, err := batch.messages(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkManyMembers adds 100,000 members to a set at once and takes them out again.
func BenchmarkManyMembers(b *testing.B) {
	const n = 100_000
	for _, kind := range []string{"addresses", "triples", "prefixes"} {
		for _, sent := range []bool{true, false} {
			b.Run(fmt.Sprint(kind, "/sent=", sent), func(b *testing.B) {
				members := crowd(kind, n)
				d, err := New(nstest.New(b), Config{LogGroup: 1})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(d.Close)
				s, id := user(kind)
				d.Update(s.Delta())
				if err := d.Sync(context.Background()); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				kernelTime(b, func() {
					for b.Loop() {
						for _, delta := range []*dataplane.Delta{setDelta(id, members, nil), setDelta(id, nil, members)} {
							d.Update(delta)
							if !sent {
								encode(b, d)
							} else if err := d.Sync(context.Background()); err != nil {
								b.Fatal(err)
							}
						}
					}
				})
			})
		}
	}
}

// BenchmarkPolicy changes one of many policies, all in use.
func BenchmarkPolicy(b *testing.B) {
	const n = 10_000
	d, err := New(nstest.New(b), Config{LogGroup: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.Close)
	s := sample()
	policy := func(i int, port uint16) *dataplane.Policy {
		return &dataplane.Policy{
			ID: dataplane.PolicyID{Kind: "NetworkPolicy", Name: fmt.Sprint("p", i)},
			Ingress: []dataplane.Rule{{
				Action: dataplane.Allow, Protocol: dataplane.TCP,
				Src: dataplane.Peer{Sets: []dataplane.SetID{dataplane.SetID(fmt.Sprint("s:", i))}},
				Dst: dataplane.Peer{Ports: []dataplane.PortRange{{Min: port, Max: port}}},
			}},
		}
	}
	ep := s.Endpoints["cali1"]
	for i := range n {
		p := policy(i, 80)
		s.Policies[p.ID] = p
		s.Sets[p.Ingress[0].Src.Sets[0]] = difftest.Members(fmt.Sprintf("10.%d.%d.1/32", i>>8, i&255))
		ep.Ingress[0].Policies = append(ep.Ingress[0].Policies, p.ID)
	}
	d.Update(s.Delta())
	if err := d.Sync(context.Background()); err != nil {
		b.Fatal(err)
	}
	run := func(b *testing.B, sent bool) {
		b.ReportAllocs()
		kernelTime(b, func() {
			for i := 0; b.Loop(); i++ {
				delta := dataplane.NewDelta()
				p := policy(7, uint16(81+i%2))
				delta.Policies[p.ID] = p
				d.Update(delta)
				if !sent {
					encode(b, d)
				} else if err := d.Sync(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("sent", func(b *testing.B) { run(b, true) })
	b.Run("encoded", func(b *testing.B) { run(b, false) })
}
