package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/dataplane"
)

func TestHostInterfaceIsUpstreams(t *testing.T) {
	// printf default.busybox01 | sha1sum | cut -c1-11
	if got := HostInterface("cali", "default", "busybox01"); got != "cali62b1ad91c8d" {
		t.Errorf("got %s", got)
	}
	if got := HostInterface("workload-", "default", "busybox01"); len(got) != maxName {
		t.Errorf("%s does not fit a device's name", got)
	}
}

func request(t *testing.T, conf string) *Request {
	t.Helper()
	r, err := ParseRequest(&wire.Request{
		Command: "ADD", ContainerID: "c1", IfName: "eth0", Config: json.RawMessage(conf),
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// show renders a wiring, an object a line.
func show(w Wiring) string {
	var b strings.Builder
	for _, o := range w.Objects {
		fmt.Fprintf(&b, "%T%v\n", o, o)
	}
	return strings.ReplaceAll(b.String(), "cni.", "")
}

func TestPlan(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.10.0.5"), netip.MustParseAddr("fd00:10::5")
	mac := PodMAC(dataplane.AttachmentID{ContainerID: "c1", IfName: "eth0"})
	pod4 := []string{
		"Neighbour{true eth0 169.254.1.1 ee:ee:ee:ee:ee:ee}",
		"Route{eth0 169.254.1.1/32 invalid IP}",
	}
	for _, c := range []struct {
		name       string
		conf       string
		addrs      []netip.Addr
		want, lack []string
	}{
		{"IPv4", `{"name":"n"}`, []netip.Addr{v4}, append(pod4,
			"Veth{calix eth0 ee:ee:ee:ee:ee:ee "+mac+" 1450}",
			"Address{eth0 10.10.0.5/32}",
			"Neighbour{false calix 10.10.0.5 "+mac+"}",
			"Route{eth0 0.0.0.0/0 169.254.1.1}",
			"Sysctl{true ipv4/ip_forward 0 false}",
			"Sysctl{false ipv4/conf/calix/proxy_arp 1 false}",
			"Sysctl{false ipv6/conf/calix/disable_ipv6 1 true}",
		), []string{"::/0", "fe80"}},
		{"dual stack", `{"name":"n"}`, []netip.Addr{v4, v6}, append(pod4,
			"Address{eth0 fd00:10::5/128}",
			"Neighbour{false calix fd00:10::5 "+mac+"}",
			"Neighbour{true eth0 fe80::ecee:eeff:feee:eeee ee:ee:ee:ee:ee:ee}",
			"Route{eth0 ::/0 fe80::ecee:eeff:feee:eeee}",
			"Sysctl{true ipv6/conf/default/accept_dad 0 true}",
			"Sysctl{false ipv6/conf/calix/disable_ipv6 0 true}",
			"Sysctl{false ipv6/conf/calix/accept_ra 0 true}",
		), []string{"disable_ipv6 1"}},
		{"IPv6 only", `{"name":"n"}`, []netip.Addr{v6}, []string{"Route{eth0 ::/0 fe80::ecee:eeff:feee:eeee}"}, []string{"169.254", "0.0.0.0/0"}},
		{"MTU given", `{"name":"n","mtu":9000}`, []netip.Addr{v4}, []string{mac + " 9000}"}, nil},
		{"forwarding pod", `{"name":"n","container_settings":{"allow_ip_forwarding":true}}`, []netip.Addr{v4},
			[]string{"Sysctl{true ipv4/ip_forward 1 false}", "Sysctl{true ipv6/conf/all/forwarding 1 true}"}, nil},
		{"own routes", `{"name":"n","ipam":{"routes":[{"dst":"10.0.0.0/8"}]}}`, []netip.Addr{v4},
			[]string{"Route{eth0 10.0.0.0/8 169.254.1.1}"}, []string{"0.0.0.0/0"}},
		{"own and default routes", `{"name":"n","include_default_routes":true,"ipam":{"routes":[{"dst":"10.0.0.0/8"}]}}`, []netip.Addr{v4},
			[]string{"Route{eth0 10.0.0.0/8 169.254.1.1}", "Route{eth0 0.0.0.0/0 169.254.1.1}"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := show(Plan(request(t, c.conf), "calix", c.addrs, 1450))
			for _, w := range c.want {
				if !strings.Contains(got, w) {
					t.Errorf("lacks %s:\n%s", w, got)
				}
			}
			for _, l := range c.lack {
				if strings.Contains(got, l) {
					t.Errorf("has %s:\n%s", l, got)
				}
			}
		})
	}
}

func TestPlanSetsUpDuplicateDetectionBeforeTheDevice(t *testing.T) {
	got := show(Plan(request(t, `{"name":"n"}`), "calix", []netip.Addr{netip.MustParseAddr("fd00::1")}, 1500))
	if dad, veth := strings.Index(got, "accept_dad"), strings.Index(got, "Veth"); dad < 0 || dad > veth {
		t.Errorf("accept_dad is set at %d, the device made at %d", dad, veth)
	}
}

func TestParseRequestRefuses(t *testing.T) {
	for _, c := range []struct {
		req  wire.Request
		code uint
		says string
	}{
		{wire.Request{Command: "FOO"}, wire.CodeEnvironment, "CNI_COMMAND=FOO"},
		{wire.Request{Command: "ADD", ContainerID: "../x", IfName: "eth0"}, wire.CodeEnvironment, "not a container ID"},
		{wire.Request{Command: "ADD", ContainerID: "c", IfName: "a/b"}, wire.CodeEnvironment, "not an interface name"},
		{wire.Request{Command: "ADD", ContainerID: "c", IfName: ".."}, wire.CodeEnvironment, "not an interface name"},
		{wire.Request{Command: "ADD", ContainerID: "c", IfName: "eth0", Config: []byte(`{`)}, wire.CodeDecode, "network configuration"},
		{wire.Request{Command: "ADD", ContainerID: "c", IfName: "eth0", Config: []byte(`{}`)}, wire.CodeConfig, "name is missing"},
		{wire.Request{Command: "ADD", ContainerID: "c", IfName: "eth0", Config: []byte(`{"name":"n","mtu":-1}`)}, wire.CodeConfig, "mtu -1"},
		{wire.Request{Command: "ADD", ContainerID: "c", IfName: "eth0", Config: []byte(`{"name":"n","cniVersion":"9.9"}`)}, wire.CodeIncompatible, "9.9"},
		{wire.Request{Command: "ADD", ContainerID: "c", IfName: "eth0", Config: []byte(`{"name":"n","ipam":{"type":"host-local"}}`)}, wire.CodeConfig, "host-local"},
		{wire.Request{Command: "ADD", ContainerID: "c", IfName: "eth0", Config: []byte(`{"name":"n","ipam":{"routes":[{"dst":"x"}]}}`)}, wire.CodeConfig, "ipam.routes"},
		{wire.Request{Command: "ADD", ContainerID: "c", IfName: "eth0", Config: []byte(`{"name":"n","type":"macvlan","ipam":{"type":"calico-ipam"}}`)}, wire.CodeConfig, "macvlan"},
	} {
		_, err := ParseRequest(&c.req)
		e, ok := err.(*wire.Error)
		if !ok || e.Code != c.code || !strings.Contains(e.Msg, c.says) {
			t.Errorf("%+v: got %v, want code %d and %q", c.req, err, c.code, c.says)
		}
	}
}

func TestSelectAddrs(t *testing.T) {
	pool := func(name, cidr string) *api.IPPool {
		p := &api.IPPool{Meta: api.Named(api.KindIPPool, "", name), Spec: api.IPPoolSpec{CIDR: cidr}}
		p.Default()
		return p
	}
	pools := []*api.IPPool{pool("a", "10.0.0.0/16"), pool("b", "10.1.0.0/16"), pool("six", "fd00::/64")}
	node := &api.Node{Meta: api.Named(api.KindNode, "", "n1")}
	for _, c := range []struct {
		name, ipam  string
		annotations map[string]string
		want        []string // pools
		says        string   // or the error
	}{
		{"every family that has a pool", `{}`, nil, []string{"a", "b", "six"}, ""},
		{"IPv4 only", `{"assign_ipv6":"false"}`, nil, []string{"a", "b"}, ""},
		{"pools of the configuration", `{"ipv4_pools":["b"],"assign_ipv6":false}`, nil, []string{"b"}, ""},
		{"pools by CIDR", `{"ipv4_pools":["10.1.0.0/16"],"assign_ipv6":false}`, nil, []string{"b"}, ""},
		{"the pod's annotation wins", `{"ipv4_pools":["b"],"assign_ipv6":false}`, map[string]string{annotationIPv4Pools: `["a"]`}, []string{"a"}, ""},
		{"unknown pool", `{"ipv4_pools":["nope"]}`, nil, nil, "nope"},
		{"annotation that is no list", `{}`, map[string]string{annotationIPv4Pools: `a`}, nil, "want a JSON list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var conf IPAMConf
			if err := json.Unmarshal([]byte(c.ipam), &conf); err != nil {
				t.Fatal(err)
			}
			s, err := selectAddrs(conf, &Pod{Annotations: c.annotations}, pools, node)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v, want an error with %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range s.pools {
				got = append(got, p.Name)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}
