package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The tree keeps the law.
func TestTree(t *testing.T) {
	packages := list(t)
	if len(packages) < 5 {
		t.Fatalf("go list knows only %d packages", len(packages))
	}
	for _, p := range packages {
		for _, c := range p.check() {
			t.Error(c)
		}
	}
}

// list asks go for all packages of the tree.
func list(t *testing.T) map[string]*pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-deps=false", "-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, &stderr)
	}
	packages := map[string]*pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir                             string
			GoFiles, Imports, TestImports, XTestImports []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		packages[name] = &pkg{
			name: name, dir: p.Dir, files: p.GoFiles, imports: ours(p.Imports),
			tests: slices.Concat(p.TestImports, p.XTestImports), packages: packages,
		}
	}
}

func ours(imports []string) []string {
	var s []string
	for _, im := range imports {
		s = append(s, strings.TrimPrefix(im, module))
	}
	return s
}

// The law forbids what it is meant to, and allows the rest.
func TestLaw(t *testing.T) {
	all := map[string]*pkg{}
	for _, l := range layers {
		for _, name := range l.packages {
			all[name] = &pkg{name: name}
		}
	}
	for name := range testOnly {
		all[name] = &pkg{name: name}
	}
	for _, name := range []string{"nft/encode", "stray"} {
		all[name] = &pkg{name: name}
	}
	all["cni/wire"].imports = []string{"k8s.io/api/core/v1"}
	for _, c := range []struct {
		from, to string
		want     string // empty: allowed
	}{
		{"felix", "calc", ""},
		{"felix", "nft", ""},
		{"felix", "tunnel", ""},
		{"calc", "felix", "calc must not import felix, which is above it"},
		{"felix", "cni", "felix must not import cni, which is of its own layer (parts)"},
		{"cni", "felix", "cni must not import felix, which is above it"},
		{"cni", "cni/wire", ""},
		{"cni/wire", "cni", "cni/wire must not import cni, which is above it"},
		{"bgp", "cni/wire", "bgp must not import cni/wire, which is of its own layer (parts)"},
		{"cni", "route", "cni must not import route: only felix, node may"},
		{"route", "netlink", ""},
		{"store/etcd", "watch", ""},
		{"route", "watch", ""},
		{"netlink", "watch", ""},
		{"tunnel", "route", "tunnel must not import route: only felix, node may"},
		{"tunnel", "bpf", ""},
		{"route", "bpf", "route must not import bpf: only felix, node, tunnel may"},
		{"typha", "store/etcd", "typha must not import store/etcd, which is of its own layer (drivers and stores)"},
		{"nft", "nft/encode", ""},
		{"nft/encode", "nft", ""},
		{"store", "store/memory", "store must not import store/memory, which is above it"},
		{"store/memory", "store", ""},
		{"nft/encode", "dataplane", ""},
		{"nft/encode", "felix", "nft/encode must not import felix, which is above it"},
		{"calc", "filter", ""},
		{"filter", "calc", "filter must not import calc, which is above it"},
		{"store", "reconcile", ""},
		{"api", "dataplane", "api must not import dataplane, which is above it"},
		{"dataplane", "netlink", "dataplane must not import netlink, which is above it"},
		{"node", "ctl", "node must not import ctl: only cmd, lab may"},
		{"lab", "ctl", ""},
		{"cmd/calicoctl", "ctl", ""},
		{"stray", "api", "stray has no place in the law: give it one in internal/archtest/law.go"},
		{"calc", "store/storetest", "calc must not import store/storetest, which is for tests"},
		{"store/storetest", "store", ""},
		{"store/storetest", "store/etcd", "store/storetest must not import store/etcd: it is for tests, of store, api, selector"},
		{"lab/labtest", "internal/nstest", ""},

		{"calc", "net/netip", ""},
		{"calc", "net", "calc is pure and must not import net"},
		{"calc", "net/http", "calc is pure and must not import net/http"},
		{"ipam", "os", "ipam is pure and must not import os"},
		{"api", "log/slog", "api is pure and must not import log/slog"},
		{"config", "golang.org/x/sys/unix", "config is pure and must not import golang.org/x/sys/unix"},
		{"watch", "os", ""},

		{"felix", "os/exec", "felix must not import os/exec: only cmd, lab, node, cni, bgp, iptables, internal/nstest, internal/bench, internal/difftest/faults may"},
		{"lab", "os/exec", ""},
		{"cmd/calico", "os/exec", ""},
		{"felix", "github.com/vishvananda/netlink", "felix must not import github.com/vishvananda/netlink: only netlink, route, tunnel, bpf, cni, lab, node, internal/bench may"},
		{"route", "github.com/vishvananda/netlink", ""},
		{"route", "github.com/google/nftables", "route must not import github.com/google/nftables: only nft may"},
		{"nft", "github.com/google/nftables/expr", ""},
		{"store/etcd", "go.etcd.io/etcd/client/v3", ""},
		{"store/etcd", "go.etcd.io/etcd/server/v3/embed", "store/etcd must not import go.etcd.io/etcd/server/v3/embed: only store/etcd/etcdtest, cmd/calico-lab, lab, internal/bench may"},
		{"store/etcd/etcdtest", "go.etcd.io/etcd/server/v3/embed", ""},
		{"lab", "go.etcd.io/etcd/client/v3", "lab must not import go.etcd.io/etcd/client/v3: only store/etcd, internal/bench may"},
		{"felix", "github.com/projectcalico/api/v3", "felix must not import github.com/projectcalico/api/v3, nor may anything"},
		{"internal/deps", "github.com/google/nftables", ""},
		{"cmd/calico-cni", "github.com/containernetworking/cni/pkg/types/100", ""},
		{"cmd/calico-cni", "github.com/spf13/cobra", "cmd/calico-cni is thin and must not link github.com/spf13/cobra (through cmd/calico-cni)"},
		{"cmd/calico-cni", "cni/wire", "cmd/calico-cni is thin and must not link k8s.io/api/core/v1 (through cni/wire)"},
		{"cmd/calico-lab", "github.com/spf13/cobra", ""},
	} {
		p := &pkg{name: c.from, imports: []string{c.to}, packages: all}
		if got := strings.Join(p.check(), "; "); got != c.want {
			t.Errorf("%s importing %s: got %q, want %q", c.from, c.to, got, c.want)
		}
	}
	p := &pkg{name: "calc", tests: []string{"github.com/projectcalico/api/v3", "os"}, packages: all}
	if got := p.check(); len(got) != 1 {
		t.Errorf("of tests: %q", got)
	}
}

func TestImpurities(t *testing.T) {
	src := `package p
import clock "time"
var a = clock.Now
func f(time struct{ Sleep func() }) {
	time.Sleep()
	go f(time)
	<-clock.After(clock.Second)
	_ = clock.Duration(1)
}`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := "use time.Now (p.go:3); start a goroutine (p.go:6); use time.After (p.go:7)"
	if got := strings.Join(impurities(fset, f), "; "); got != want {
		t.Errorf("got %s", got)
	}
}

// No package stands twice, and none is named in a rule without a place.
func TestLawIsConsistent(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range layers {
		for _, p := range l.packages {
			if seen[p] {
				t.Errorf("%s has two places", p)
			}
			seen[p] = true
		}
	}
	known := func(names []string) {
		for _, n := range names {
			_, test := testOnly[n]
			if !seen[n] && !test && n != "cmd" {
				t.Errorf("%s is named in a rule and has no place", n)
			}
		}
	}
	for p, only := range importers {
		known(append([]string{p}, only...))
	}
	for p, also := range exceptions {
		known(append([]string{p}, also...))
	}
	for _, e := range effects {
		known(e.places)
	}
	for _, may := range testOnly {
		known(may)
	}
}
