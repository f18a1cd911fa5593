package node

import (
	"net/netip"
	"testing"

	vnl "github.com/vishvananda/netlink"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// twoNICs makes a namespace with docker0 (first, to be passed over), eth0 and eth1, and a
// default route by eth1.
func twoNICs(t *testing.T) (int, *netlink.Handle) {
	t.Helper()
	ns := nstest.New(t)
	h, err := netlink.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, nic := range []struct{ name, v4, v6 string }{
		{"docker0", "172.17.0.1/16", "fd00:17::1/64"},
		{"eth0", "10.0.0.1/24", "fd00:1::1/64"},
		{"eth1", "10.0.1.1/24", "fd00:2::1/64"},
	} {
		l := &vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: nic.name}, PeerName: "p" + nic.name}
		must(h.LinkAdd(l))
		must(h.LinkSetUp(l))
		for _, s := range []string{nic.v4, nic.v6} {
			a, err := vnl.ParseAddr(s)
			must(err)
			a.Flags = 0x02 // IFA_F_NODAD
			must(h.AddrAdd(l, a))
		}
		peer, err := h.LinkByName("p" + nic.name)
		must(err)
		must(h.LinkSetUp(peer))
		if i == 2 {
			must(h.RouteAdd(&vnl.Route{LinkIndex: l.Index, Gw: netip.MustParseAddr("10.0.1.254").AsSlice()}))
		}
	}
	return ns, h
}

func TestDetect(t *testing.T) {
	t.Parallel()
	ns, h := twoNICs(t)
	method := func(s string) AddressSetting {
		m, err := ParseMethod(s)
		if err != nil {
			t.Fatal(err)
		}
		return AddressSetting{Method: m}
	}
	given := func(s string) AddressSetting {
		p, err := parseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return AddressSetting{Given: p}
	}
	for _, c := range []struct {
		name      string
		family    dataplane.Family
		set       AddressSetting
		datastore string
		want      string // empty: none
	}{
		{"route to the datastore", dataplane.IPv4, AddressSetting{}, "http://10.0.1.77:2379", "10.0.1.1/24"},
		{"by the default route", dataplane.IPv4, AddressSetting{}, "https://192.0.2.1:2379", "10.0.1.1/24"},
		{"datastore on this machine", dataplane.IPv4, AddressSetting{}, "http://127.0.0.1:2379", "10.0.0.1/24"},
		{"datastore by Unix socket", dataplane.IPv4, AddressSetting{}, "unix:///run/etcd.sock", "10.0.0.1/24"},
		{"first found passes docker0 over", dataplane.IPv4, method("first-found"), "http://10.0.1.77:2379", "10.0.0.1/24"},
		{"first found, IPv6", dataplane.IPv6, method("first-found"), "", "fd00:1::1/64"},
		{"datastore of the other family", dataplane.IPv6, AddressSetting{}, "http://10.0.1.77:2379", "fd00:1::1/64"},
		{"interface", dataplane.IPv4, method("interface=^eth1$"), "", "10.0.1.1/24"},
		{"second of two interfaces", dataplane.IPv4, method("interface=^wlan,eth1"), "", "10.0.1.1/24"},
		{"skip-interface", dataplane.IPv4, method("skip-interface=eth0"), "", "10.0.1.1/24"},
		{"cidr", dataplane.IPv4, method("cidr=10.0.1.0/24"), "", "10.0.1.1/24"},
		{"cidr, none", dataplane.IPv4, method("cidr=192.0.2.0/24"), "", ""},
		{"can-reach", dataplane.IPv4, method("can-reach=10.0.0.9"), "http://10.0.1.77:2379", "10.0.0.1/24"},
		{"given wins", dataplane.IPv4, given("10.0.0.1"), "http://10.0.1.77:2379", "10.0.0.1/24"},
		{"given with length", dataplane.IPv4, given("10.0.0.1/16"), "", "10.0.0.1/16"},
		{"off", dataplane.IPv6, AddressSetting{Off: true}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got netip.Prefix
			var ok bool
			err := netlink.Do(ns, func() (err error) {
				got, ok, err = detect(h, c.family, c.set, []string{c.datastore})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if s := got.String(); ok != (c.want != "") || ok && s != c.want {
				t.Errorf("got %s, %v; want %q", s, ok, c.want)
			}
		})
	}
}

func TestParseMethodErrors(t *testing.T) {
	for _, s := range []string{"fastest", "interface", "interface=", "interface=(", "cidr=10.0.0.0/33", "can-reach="} {
		if _, err := ParseMethod(s); err == nil {
			t.Errorf("%q is taken for a method", s)
		}
	}
}
