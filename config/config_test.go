package config

import (
	"bufio"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
)

func TestTable(t *testing.T) {
	names, fields := map[string]bool{}, map[string]bool{}
	for _, p := range Params() {
		if names[p.Name] || p.Field != "" && fields[p.Field] {
			t.Errorf("%s (%s) stands twice", p.Name, p.Field)
		}
		names[p.Name], fields[p.Field] = true, true
		if p.Local && p.Field != "" {
			t.Errorf("%s is local and has a field", p.Name)
		}
		if p.Default == "" {
			continue
		}
		if _, err := p.Type.Value(p.Default); err != nil {
			t.Errorf("%s: default: %v", p.Name, err)
		}
	}
	if len(names) != 210 {
		t.Errorf("%d parameters, want the 209 of upstream and one of ours", len(names))
	}
	if !strings.Contains(Markdown(), "| `HealthPort` | `healthPort` | a whole number from 0 to 65535 | `9099` | Port of the health endpoint. |\n") {
		t.Error("Markdown leaves out HealthPort")
	}
}

// The defaults of the documentation are those of the dataplane.
func TestDefaults(t *testing.T) {
	f, errs := Resolve()
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if diff := cmp.Diff(dataplane.DefaultSettings(), f.Settings()); diff != "" {
		t.Error(diff)
	}
	if f.HealthPort != 9099 || f.HealthHost != "localhost" || f.HealthEnabled || f.PrometheusMetricsPort != 9091 ||
		f.VXLANPort != 4789 || f.VXLANVNI != 4096 || f.DeviceRouteProtocol != 3 || f.VXLANEnabled != nil ||
		f.RouteRefresh != 90*time.Second || f.ProgramClusterRoutes != "EnabledIPIPOnly" || f.RouteSource != "CalicoIPAM" ||
		f.LogSeverityScreen != "INFO" || f.NATOutgoingAddress.IsValid() || !f.MTUIfacePattern.MatchString("eth0") {
		t.Errorf("%+v", f)
	}
	if len(f.FailsafeInboundHostPorts) != 9 || f.FailsafeInboundHostPorts[1] != (HostPort{Protocol: "udp", Port: 68}) {
		t.Errorf("failsafes: %v", f.FailsafeInboundHostPorts)
	}
}

func env(pairs ...string) Layer { return FromEnviron(pairs) }

func spec(t *testing.T, text string) api.FelixConfigurationSpec {
	t.Helper()
	var s api.FelixConfigurationSpec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestResolvePrecedence(t *testing.T) {
	cluster := fromSpec("FelixConfiguration", spec(t, `{"healthPort": 1, "vxlanPort": 1, "vxlanVNI": 1, "vxlanMTU": 1}`))
	node := fromSpec("FelixConfiguration", spec(t, `{"healthPort": 2, "vxlanPort": 2, "vxlanVNI": 2}`))
	file := FromFile("felix.cfg", "[global]\n# why\nHealthPort = 3\nvxlanport=3\n\n")
	f, errs := Resolve(env("FELIX_HEALTHPORT=4", "PATH=/bin", "felix_HealthEnabled=yes", "FELIX_VXLANVNI="), file, node, cluster)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if f.HealthPort != 4 || f.VXLANPort != 3 || f.VXLANVNI != 2 || f.VXLANMTU != 1 || !f.HealthEnabled {
		t.Errorf("%+v", f)
	}
}

func TestResolveBadValue(t *testing.T) {
	f, errs := Resolve(
		env("FELIX_HEALTHPORT=99999", "FELIX_NOSUCH=1", "FELIX_DEFAULTENDPOINTTOHOSTACTION=none", "FELIX_INTERFACEPREFIX=,", "FELIX_VXLANMTU=big"),
		fromSpec("FelixConfiguration", spec(t, `{"healthPort": 9100, "vxlanMTU": "1400", "logPrefix": "x"}`)))
	if f.HealthPort != 9100 || f.DefaultEndpointToHostAction != "DROP" || f.InterfacePrefixes[0] != "cali" || f.VXLANMTU != 0 || f.LogPrefix != "x" {
		t.Errorf("%+v", f)
	}
	var got []string
	for _, err := range errs {
		got = append(got, err.Error())
	}
	want := []string{
		`environment: DefaultEndpointToHostAction: "none": must be one of ACCEPT, DROP, RETURN`,
		`environment: HealthPort: "99999": must be a whole number from 0 to 65535`,
		`environment: InterfacePrefix: ",": must be a list of prefixes, 1 to 14 letters, digits, '_' or '-' each, separated by commas`,
		`environment: unknown parameter "nosuch"`,
		`environment: VXLANMTU: "big": must be a whole number from 0 to 65535`,
		`FelixConfiguration: spec.vxlanMTU: "1400": must be a whole number`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNone(t *testing.T) {
	f, errs := Resolve(env("FELIX_FAILSAFEINBOUNDHOSTPORTS=none", "FELIX_LOGSEVERITYSCREEN=None", "FELIX_IPV6SUPPORT=none", "FELIX_LOGPREFIX=none"))
	if len(errs) > 0 || f.FailsafeInboundHostPorts != nil || f.LogSeverityScreen != "" || f.Ipv6Support || f.LogPrefix != "" {
		t.Errorf("%v %+v", errs, f)
	}
	p := byName["flowlogspolicyevaluationmode"]
	if v, err := p.value("none"); v != "None" || err != nil {
		t.Errorf("an option called None: got %v, %v", v, err)
	}
}

func TestFromSpecForms(t *testing.T) {
	for _, c := range []struct{ field, yaml, want string }{
		{"routeRefreshInterval", `"1m30s"`, "90"},
		{"iptablesLockProbeInterval", `"50ms"`, "50"},
		{"failsafeInboundHostPorts", `[{"protocol":"TCP","port":22},{"protocol":"udp","net":"fd00::/64","port":53},{"port":1},{"net":"10.0.0.0/8","port":2}]`, "tcp:22,udp:[fd00::/64]:53,1,tcp:[10.0.0.0/8]:2"},
		{"failsafeInboundHostPorts", `[]`, "none"},
		{"externalNodesList", `["10.0.0.1","10.1.0.0/16"]`, "10.0.0.1,10.1.0.0/16"},
		{"externalNodesList", `[]`, "none"},
		{"natPortRange", `"1000:2000"`, "1000:2000"},
		{"natPortRange", `1000`, "1000"},
		{"kubeNodePortRanges", `["30000:32767",80]`, "30000:32767,80"},
		{"iptablesMarkMask", `4294901760`, "4294901760"},
		{"routeTableRange", `{"min":1,"max":250}`, "1-250"},
		{"routeTableRanges", `[{"min":1,"max":2},{"min":300,"max":400}]`, "1-2,300-400"},
		{"healthTimeoutOverrides", `[{"name":"x","timeout":"90s"}]`, "x=1m30s"},
		{"bpfConntrackTimeouts", `{"tcpSynSent":"20s","udpTimeout":"Auto"}`, "tcpSynSent=20s,udpTimeout=Auto"},
		{"bpfLogFilters", `{"eth0":"tcp port 80"}`, "eth0=tcp port 80"},
		{"istioDSCPMark", `"EF"`, "EF"},
		{"istioDSCPMark", `23`, "23"},
		{"healthEnabled", `true`, "true"},
		{"defaultEndpointToHostAction", `"Accept"`, "Accept"},
		{"interfaceExclude", `"kube-ipvs0,/^veth/"`, "kube-ipvs0,/^veth/"},
	} {
		l := fromSpec("FelixConfiguration", spec(t, `{"`+c.field+`":`+c.yaml+`}`))
		if got, _ := l.Get(byField[c.field].Name); got != c.want || len(l.Errors()) > 0 {
			t.Errorf("%s: %s: got %q, %v; want %q", c.field, c.yaml, got, l.Errors(), c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{`{}`, ""},
		{`{"healthPort": null, "logPrefix": ""}`, ""},
		{`{"defaultEndpointToHostAction": "Maybe"}`, `FelixConfiguration default: spec.defaultEndpointToHostAction: "Maybe": must be one of ACCEPT, DROP, RETURN`},
		{`{"healthEnabled": "yes"}`, `spec.healthEnabled: "yes": must be true or false`},
		{`{"routeRefreshInterval": 90}`, `spec.routeRefreshInterval: 90: must be a duration such as 90s or 1m30s`},
		{`{"natOutgoingAddress": "fd00::1"}`, `spec.natOutgoingAddress: "fd00::1": must be an IPv4 address`},
		{`{"deviceRouteSourceAddressIPv6": "10.0.0.1"}`, `must be an IPv6 address`},
		{`{"nftablesMarkMask": 1}`, `spec.nftablesMarkMask: "1": must be a 32-bit mask with at least 3 bits set`},
		{`{"nftablesMarkMask": 7}`, ``},
		{`{"iptablesMarkMask": 7}`, `spec.iptablesMarkMask: "7": must be a 32-bit mask with at least 4 bits set`},
		{`{"iptablesMarkMask": 4294901760}`, ``},
		{`{"nftablesMode": "Sometimes"}`, `spec.nftablesMode: "Sometimes": must be one of Auto, Disabled, Enabled`},
		{`{"iptablesBackend": "ebtables"}`, `spec.iptablesBackend: "ebtables": must be one of auto, legacy, nft`},
		{`{"maxIpsetSize": -1}`, `spec.maxIpsetSize: "-1": must be a whole number from 0 to 2147483648`},
		{`{"interfacePrefix": "cali,abcdefghijklmno"}`, `1 to 14 letters`},
		{`{"logPrefix": "` + strings.Repeat("x", 125) + `"}`, ``},
		{`{"logPrefix": "` + strings.Repeat("x", 126) + `"}`, `must be a text of at most 125 bytes, in one line`},
		{`{"logPrefix": "a\nb"}`, `must be a text of at most 125 bytes, in one line`},
		{`{"failsafeInboundHostPorts": [{"protocol": "sctp", "port": 1}]}`, `spec.failsafeInboundHostPorts: "sctp:1": must be a list such as`},
		{`{"failsafeInboundHostPorts": [{"protocol": "tcp"}]}`, `spec.failsafeInboundHostPorts: [0]: port is missing`},
		{`{"failsafeInboundHostPorts": [{"prot": "tcp", "port": 1}]}`, `must be a list of {protocol, net, port}`},
		{`{"mtuIfacePattern": "("}`, `spec.mtuIfacePattern: "(": error parsing regexp`},
		{`{"natPortRange": "9:1"}`, `spec.natPortRange: "9:1": must be a port`},
		{`{"nosuch": 1}`, `FelixConfiguration default: spec.nosuch: unknown parameter`},
		{`{"healthport": 1}`, `spec.healthport: unknown parameter; did you mean "healthPort"?`},
		{`{"etcdEndpoints": "x"}`, `spec.etcdEndpoints: unknown parameter: it can only be set in the environment or the file`},
		{`{"routeTableRange": {"min":1,"max":2}, "routeTableRanges": [{"min":1,"max":2}]}`, `cannot both be set`},
		{`{"routeTableRanges": [{"min":0,"max":2}]}`, `names table 0`},
		{`{"a": 1, "b": 2}`, `spec.a: unknown parameter; FelixConfiguration default: spec.b: unknown parameter`},
	} {
		o := &api.FelixConfiguration{Meta: api.Named(api.KindFelixConfiguration, "", "default"), Spec: spec(t, c.spec)}
		err := Validate(o)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.spec, err, c.want)
		}
	}
}

func TestSettings(t *testing.T) {
	f, errs := Resolve(env("FELIX_INTERFACEPREFIX=cali,tap", "FELIX_DEFAULTENDPOINTTOHOSTACTION=return", "FELIX_NFTABLESFILTERDENYACTION=reject",
		"FELIX_NFTABLESFILTERALLOWACTION=return", "FELIX_NFTABLESMARKMASK=0xff00", "FELIX_IPV6SUPPORT=false", "FELIX_WORKLOADSOURCESPOOFING=any",
		"FELIX_ALLOWVXLANPACKETSFROMWORKLOADS=1", "FELIX_ALLOWIPIPPACKETSFROMWORKLOADS=y", "FELIX_VXLANPORT=8472", "FELIX_LOGPREFIX=p", "FELIX_NATOUTGOINGADDRESS=10.0.0.1"))
	want := dataplane.Settings{InterfacePrefixes: []string{"cali", "tap"}, EndpointToHost: dataplane.Pass, FilterAllow: dataplane.Return, FilterDeny: dataplane.Reject,
		MangleAllow: dataplane.Accept, MarkMask: 0xff00, AllowSpoofing: true, AllowVXLANFromPod: true, AllowIPIPFromPod: true, VXLANPort: 8472, LogPrefix: "p", NATOutgoingAddr: "10.0.0.1",
		Iptables: dataplane.IptablesSettings{Variant: "auto", MaxSetSize: 1 << 20}, Refresh: 3 * time.Minute}
	if diff := cmp.Diff(want, f.Settings()); diff != "" || len(errs) > 0 {
		t.Error(errs, diff)
	}
	f, errs = Resolve(env("FELIX_NFTABLESMODE=disabled", "FELIX_IPTABLESMARKMASK=0xf0", "FELIX_IPTABLESFILTERDENYACTION=reject", "FELIX_NFTABLESFILTERALLOWACTION=return",
		"FELIX_IPTABLESMANGLEALLOWACTION=return", "FELIX_LOGACTIONRATELIMIT=100/minute", "FELIX_LOGACTIONRATELIMITBURST=7",
		"FELIX_LOGACTIONNFLOGGROUP=3", "FELIX_IPTABLESBACKEND=legacy", "FELIX_CHAININSERTMODE=append", "FELIX_MAXIPSETSIZE=99", "FELIX_IPSETSREFRESHINTERVAL=0", "FELIX_IPTABLESREFRESHINTERVAL=7"))
	want = dataplane.DefaultSettings()
	want.Backend, want.MarkMask, want.FilterDeny, want.MangleAllow = dataplane.Iptables, 0xf0, dataplane.Reject, dataplane.Return
	want.LogRate = dataplane.Rate{Packets: 100, Per: dataplane.PerMinute, Burst: 7}
	want.LogGroup, want.Refresh = 3, 7*time.Second
	want.Iptables = dataplane.IptablesSettings{Variant: "legacy", Append: true, MaxSetSize: 99}
	if diff := cmp.Diff(want, f.Settings()); diff != "" || len(errs) > 0 {
		t.Error(errs, diff)
	}
}

func TestTypes(t *testing.T) {
	for _, c := range []struct {
		typ  Type
		in   string
		want any // nil: refused
	}{
		{hostPorts, "22", []HostPort{{Protocol: "tcp", Port: 22}}},
		{hostPorts, "UDP:10.0.0.0/8:53, tcp:[fd00::/64]:1", []HostPort{{"udp", netip.MustParsePrefix("10.0.0.0/8"), 53}, {"tcp", netip.MustParsePrefix("fd00::/64"), 1}}},
		{hostPorts, "icmp:1", nil},
		{hostPorts, "tcp:70000", nil},
		{hostPorts, "tcp::1", nil},
		{markMask(3), "0xc0000000", nil},
		{markMask(3), "0", nil},
		{markMask(3), "0x1ffffffff", nil},
		{markMask(3), "0xe0000000", uint32(0xe0000000)},
		{markMask(4), "0xe0000000", nil},
		{seconds, "0.5", 500 * time.Millisecond},
		{seconds, "NaN", nil},
		{seconds, "1e300", nil},
		{seconds, "90s", nil},
		{milliseconds, "50", 50 * time.Millisecond},
		{dscp, "ef", uint8(46)},
		{dscp, "64", nil},
		{tableRange, "1-250", TableRange{1, 250}},
		{tableRange, "1-251", nil},
		{tableRanges, "1-2 10-20,30-30", []TableRange{{1, 2}, {10, 20}, {30, 30}}},
		{tableRanges, "1-4294967295", nil},
		{endpoints, "https://a:1,http://b:2", []string{"https://a:1", "http://b:2"}},
		{endpoints, "a:1", nil},
		{cidrs, "10.0.0.1,10.0.0.0/8", []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/8")}},
		{interfaceList, "/(/", nil},
		{port, "0x50", 80},
		{keyValues, "a=1, b=x=y", map[string]string{"a": "1", "b": "x=y"}},
		{keyValues, "a", nil},
		{timeouts, "TCPSynSent=Auto,X=1s", map[string]string{"TCPSynSent": "Auto", "X": "1s"}},
		{timeouts, "X=soon", nil},
		{durations, "a=1m", map[string]time.Duration{"a": time.Minute}},
	} {
		got, err := c.typ.Value(c.in)
		if (err == nil) != (c.want != nil) || err == nil && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q as %s: got %v, %v; want %v", c.in, c.typ.Want, got, err, c.want)
		}
	}
}

// What a layer sets and whatever text it holds, Resolve answers, and errors agree with
// what is ignored.
func TestResolveRandom(t *testing.T) {
	seed := uint64(rand.Int64())
	if s := os.Getenv("CONFIG_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	r := rand.New(rand.NewPCG(seed, 0))
	texts := []string{"none", "1", "true", "0xffff0000", "ACCEPT", "DROP", "10.0.0.1", "fd00::1", "a=b", "1-2", "tcp:1", "x,y", "/(/", "☃", "-1", "1e9", "99999999999999999999"}
	ps := Params()
	for range 1000 {
		l := Layer{Source: "random", Values: map[string]string{}}
		for range 1 + r.IntN(20) {
			l.Values[strings.ToLower(ps[r.IntN(len(ps))].Name)] = texts[r.IntN(len(texts))]
		}
		f, errs := Resolve(l)
		again, _ := Resolve(l, l)
		if !reflect.DeepEqual(f.Settings(), again.Settings()) || len(errs) != len(l.Errors()) {
			t.Fatalf("CONFIG_SEED=%d: %v", seed, l)
		}
		for name := range l.Values { // without what was refused, nothing changes
			if _, err := byName[name].value(l.Values[name]); err != nil {
				delete(l.Values, name)
			}
		}
		clean, errs := Resolve(l)
		if len(errs) > 0 || !reflect.DeepEqual(f.Settings(), clean.Settings()) || len(f.InterfacePrefixes) == 0 {
			t.Fatalf("CONFIG_SEED=%d: %v", seed, errs)
		}
	}
}

func FuzzFromFile(f *testing.F) {
	f.Add("[global]\nHealthPort = 1\nx\n")
	f.Fuzz(func(t *testing.T, text string) {
		l := FromFile("f", text)
		Resolve(l)
		if n := len(l.Values); n > strings.Count(text, "=") {
			t.Errorf("%d values", n)
		}
	})
}

func FuzzFromSpec(f *testing.F) {
	for _, p := range Params() {
		f.Add(p.Field, `[{"port": 1}]`)
	}
	f.Fuzz(func(t *testing.T, field, raw string) {
		if !json.Valid([]byte(raw)) {
			return
		}
		l := fromSpec("FelixConfiguration", api.FelixConfigurationSpec{field: json.RawMessage(raw)})
		if errs := l.Errors(); len(l.Values) > 0 && len(errs) > 0 {
			t.Errorf("both taken and refused: %v %v", l.Values, errs)
		}
	})
}

func TestFromFileReportsLine(t *testing.T) {
	l := FromFile("felix.cfg", "a = 1\nnonsense\n"+strings.Repeat("x", bufio.MaxScanTokenSize+1))
	errs := l.Errors()
	if len(errs) != 3 || !strings.HasPrefix(errs[0].Error(), `felix.cfg: line 2: "nonsense": must be NAME = VALUE`) {
		t.Error(errs)
	}
}
