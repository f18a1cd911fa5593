package iptables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
)

// refusedObjects are the objects that an error names, wherever in it they are.
func refusedObjects(err error) (objects []string) {
	var r *filter.Refused
	switch x := err.(type) {
	case nil:
	case *filter.Refused:
		objects = append(objects, x.Object)
	case interface{ Unwrap() []error }:
		for _, e := range x.Unwrap() {
			objects = append(objects, refusedObjects(e)...)
		}
	default:
		if errors.As(err, &r) {
			objects = refusedObjects(errors.Unwrap(err))
		}
	}
	slices.Sort(objects)
	return slices.Compact(objects)
}

// What iptables or ipset cannot hold is refused by the name of the policy's chain or of the endpoint's, and not by others'.
func TestRefusedNamesItsObject(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		for name, c := range map[string]struct {
			spoil func(*dataplane.State)
			says  string
			blame func(filter.Blame) bool
		}{
			"rule that cannot be written": {
				func(s *dataplane.State) {
					s.Policies[difftest.Web()].Ingress[0] = dataplane.Rule{Action: dataplane.Allow, Protocol: dataplane.ICMP4, ICMP: &dataplane.ICMP{Type: 255}}
				},
				"ICMP type 255", ofWeb,
			},
			"device": {
				func(s *dataplane.State) {
					e := *s.Endpoints["cali1"]
					e.Interface = `ca"li`
					s.Endpoints[e.Interface] = &e
				},
				`device "ca\"li"`, func(b filter.Blame) bool { return b.Endpoint != nil && b.Endpoint.Interface == `ca"li` },
			},
			"address of 65 devices": {
				func(s *dataplane.State) {
					for i := range maxDevices + 1 {
						e := *s.Endpoints["cali1"]
						e.Interface = dataplane.Interface(fmt.Sprintf("cali9%03d", i))
						e.Addrs, e.Sources = []netip.Addr{netip.MustParseAddr("10.7.7.7")}, nil
						s.Endpoints[e.Interface] = &e
					}
				},
				"more than 64 devices", func(b filter.Blame) bool { return b.Endpoint != nil && b.Endpoint.Interface == "cali9064" },
			},
		} {
			d := newDriver(t, nstest.New(t), v)
			s := sample()
			c.spoil(s)
			d.Update(s.Delta())
			for range 2 { // the same each time
				err := d.Sync(context.Background())
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%s: error %v, want %q", name, err, c.says)
				}
				objects := refusedObjects(err)
				if len(objects) != 1 || !c.blame(d.families[0].compiler.Blame(objects[0])) {
					t.Errorf("%s: of objects %q: %v", name, objects, err)
				}
			}
		}
	})
}

// Any number of ports, which packets must have or must not, is taken.
func TestAnyNumberOfPorts(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		d := newDriver(t, nstest.New(t), v)
		s := sample()
		var ports []dataplane.PortRange
		for i := range uint16(1200) {
			ports = append(ports, dataplane.PortRange{Min: 3 * i, Max: 3*i + i%2})
		}
		s.Policies[difftest.Web()].Ingress = []dataplane.Rule{
			{Action: dataplane.Allow, Protocol: dataplane.TCP, Dst: dataplane.Peer{NotPorts: ports}, Src: dataplane.Peer{NotPorts: ports[7:]}},
			{Action: dataplane.Allow, Protocol: dataplane.UDP, Dst: dataplane.Peer{Ports: ports}},
		}
		d.Update(s.Delta())
		mustSync(t, d)
		quiet(t, d)
	})
}

func ofWeb(b filter.Blame) bool { return len(b.Policies) == 1 && b.Policies[0].ID == difftest.Web() }

// What the kernel refuses is told from what it takes, also by legacy iptables, which does not say.
func TestKernelRefusesAChain(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		d := newDriver(t, b.ns, v)
		d.Update(sample().Delta())
		mustSync(t, d)
		was := b.all()
		im := d.families[0].im
		e := &tableEdit{table: filterTable}
		for i := range 9 {
			name := fmt.Sprint("cali-good", i)
			im.contents[name] = nil
			e.chains = append(e.chains, edit{name: name, has: true, new: []string{commented(" -j LOG"), commented(" -j cali-FORWARD")}})
		}
		// A helper of two chains. The nat table alone takes the target.
		im.contents["cali-do-bad"] = nil
		e.chains = append(e.chains, edit{name: "cali-do-bad", has: true, new: []string{commented(" -j LOG"), commented(" -j MASQUERADE")}})
		for _, name := range []string{"cali-pi-a", "cali-pi-b"} {
			im.contents[name] = []filter.Rule{{Verdict: filter.Goto, Target: "cali-do-bad"}}
			e.chains = append(e.chains, edit{name: name, has: true, new: []string{commented(" -g cali-do-bad")}})
		}
		err := d.restore(d.families[0], e)
		if err == nil {
			t.Fatal("the kernel takes MASQUERADE in the filter table")
		}
		if got := refusedObjects(err); !slices.Equal(got, []string{"cali-pi-a", "cali-pi-b"}) {
			t.Errorf("of objects %q: %v", got, err)
		}
		if now := b.all(); sorted(now) != sorted(was) {
			t.Errorf("left:\n%s", difference(was, now))
		}
	})
}

// One address of a pod too many leaves the others'.
func TestOneSourceTooMany(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		d := newDriver(t, b.ns, v)
		s := sample()
		for i := range maxDevices {
			e := *s.Endpoints["cali1"]
			e.Interface, e.Addrs, e.Sources = dataplane.Interface(fmt.Sprintf("cali9%03d", i)), []netip.Addr{netip.MustParseAddr("10.7.7.7")}, nil
			s.Endpoints[e.Interface] = &e
		}
		d.Update(s.Delta())
		mustSync(t, d)
		more := dataplane.NewDelta()
		e := *s.Endpoints["cali9000"]
		e.Interface = "cali0"
		more.Endpoints[e.Interface] = &e
		d.Update(more)
		for range 3 {
			err := d.Sync(context.Background())
			if got := refusedObjects(err); len(got) != 1 || got[0] != filter.ObjectOf("cali0") {
				t.Errorf("of objects %q: %v", got, err)
			}
		}
		more.Endpoints[e.Interface] = nil
		d.Update(more)
		mustSync(t, d)
		quiet(t, d)
	})
}

// A mask of too few bits is told in one line, whatever the families.
func TestMarkMask(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		d := newDriver(t, nstest.New(t), v)
		s := sample()
		s.Settings.MarkMask = 0x7
		d.Update(s.Delta())
		err := d.Sync(context.Background())
		if want := "IptablesMarkMask 0x7: iptables needs 4 bits of the mark, and these are 3; set more bits"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		s.Settings.MarkMask = 0xf
		d.Update(s.Delta())
		mustSync(t, d)
	})
}
