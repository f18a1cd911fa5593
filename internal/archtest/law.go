package archtest

// module is the path that our packages' begin with.
const module = "github.com/calicogo/calico/"

// layer is packages of one height.
type layer struct {
	name     string
	packages []string
	// own are those of the layer that others of it may import; nil: none. A package and the
	// packages below its own directory are not bound by that.
	own []string
	// pure packages have no effects, clocks or goroutines.
	pure bool
}

// layers are the packages of the tree, those that are yet to come among them, from the top
// down. A package may import what stands below it, subject to own. A package that
// is not named belongs to the nearest directory above it that is.
var layers = []layer{
	{name: "commands", packages: []string{"cmd/calico", "cmd/calicoctl", "cmd/calico-cni", "cmd/calico-lab"}},
	{name: "lab", packages: []string{"lab"}},
	{name: "node", packages: []string{"node"}},
	{name: "parts", packages: []string{"felix", "bgp", "cni", "cni/wire", "controllers", "ctl"}},
	{
		name: "drivers and stores",
		packages: []string{
			"typha", "store/kube", "store/etcd", "store/memory", "nft", "iptables", "route", "tunnel",
			"bpf", "conntrack", "netlink", "watch",
		},
		own: []string{"netlink", "watch"},
	},
	{name: "machines", pure: true, packages: []string{"calc", "ipam", "filter", "labelindex", "kubeconv", "config", "store"}, own: whole},
	{name: "terms", pure: true, packages: []string{"dataplane", "reconcile", "api"}, own: whole},
	{name: "selector", pure: true, packages: []string{"selector"}},
}

// whole as own stands for all of the layer that are further down.
var whole = []string{"*"}

// exceptions are imports that the layers alone would forbid.
var exceptions = map[string][]string{
	"tunnel": {"bpf"}, // the encapsulator that stands in for IPIP
}

// importers are packages that only these may import, be they above them or not.
var importers = map[string][]string{
	"ctl":       {"cmd", "lab"},
	"nft":       {"felix", "node"},
	"iptables":  {"felix", "node"},
	"route":     {"felix", "node"},
	"tunnel":    {"felix", "node", "lab"}, // the lab asks what the kernel can make
	"conntrack": {"felix", "node"},
	"bpf":       {"felix", "node", "tunnel"},
}

// testOnly are packages for tests alone, with what they may import of ours. Nothing but tests
// and each other may import them.
var testOnly = map[string][]string{
	"internal/archtest":        {},
	"internal/nstest":          {"netlink"},
	"internal/deps":            {}, // pins libraries until they are used
	"internal/difftest/faults": {},
	"internal/difftest":        {"dataplane", "filter", "nft", "calc", "api", "store", "selector", "netlink", "internal/nstest"},
	"store/storetest":          {"store", "api", "selector"},
	"store/etcd/etcdtest":      {"store/etcd", "store", "api", "internal/nstest"},
	"netlink/netlinktest":      {"netlink", "internal/nstest"},
	"lab/labtest":              {"lab", "internal/nstest"},
	"internal/bench":           {"netlink", "api", "store", "store/etcd", "dataplane", "calc", "ipam", "labelindex", "selector", "nft", "iptables"},
	"internal/bench/empty":     {},
}

// thin commands link, of libraries that are not ours, only these and the standard library: what a
// binary links is what it costs to start.
var thin = map[string][]string{
	"cmd/calico-cni": {"github.com/containernetworking/cni/"},
}

// impure are imports that a pure package does without; those with a slash at the end, with
// all below.
var impure = []string{"os", "os/", "net", "net/", "syscall", "log", "log/", "golang.org/x/sys/", "golang.org/x/net/", "google.golang.org/", "go.etcd.io/"}

// pureAfterAll are exceptions of impure: they parse and print, no more.
var pureAfterAll = []string{"net/netip", "net/url"}

// clocks are functions of package time that a pure package does without: time comes in as a
// value.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// effect is a library with an effect, and the packages that alone may import it; a directory
// stands for all below it.
type effect struct {
	library string // an import path; with a slash at the end, all below it
	places  []string
}

// effects has one place per effect. The first that fits an import decides.
var effects = []effect{
	{"os/exec", []string{"cmd", "lab", "node", "cni", "bgp", "iptables", "internal/nstest", "internal/bench", "internal/difftest/faults"}},
	{"github.com/vishvananda/netlink", []string{"netlink", "route", "tunnel", "bpf", "cni", "lab", "node", "internal/bench"}},
	{"github.com/vishvananda/netlink/", []string{"netlink", "route", "tunnel", "bpf", "cni", "lab", "node", "internal/bench"}},
	{"github.com/vishvananda/netns", []string{"netlink", "lab"}},
	{"github.com/mdlayher/netlink", []string{"netlink", "nft"}},
	{"github.com/mdlayher/netlink/", []string{"netlink", "nft"}},
	{"github.com/google/nftables", []string{"nft"}},
	{"github.com/google/nftables/", []string{"nft"}},
	{"go.etcd.io/etcd/server/", []string{"store/etcd/etcdtest", "cmd/calico-lab", "lab", "internal/bench"}},
	{"go.etcd.io/", []string{"store/etcd", "internal/bench"}},
	{"k8s.io/client-go/", []string{"store/kube"}},
	{"github.com/cilium/ebpf", []string{"bpf"}},
	{"github.com/cilium/ebpf/", []string{"bpf"}},
	{"github.com/osrg/gobgp/", []string{"bgp"}},
	{"golang.zx2c4.com/wireguard/", []string{"tunnel"}},
	{"github.com/containernetworking/cni/libcni", []string{"lab"}},
	{"github.com/containernetworking/cni/", []string{"cni", "cmd/calico-cni", "lab"}},
}

// never are libraries that nothing imports, tests included.
var never = []string{"github.com/projectcalico/"}
