package netlink_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// watchTables runs a monitor of the tables called calico.
func watchTables(t *testing.T, ns int, ports ...uint32) <-chan netlink.TableChange {
	t.Helper()
	m, err := netlink.NewTableMonitor(ns, "calico", ports...)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	changes, done := make(chan netlink.TableChange, 1000), make(chan error)
	go func() { done <- m.Run(ctx, func(c netlink.TableChange) { changes <- c }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	return changes
}

func next(t *testing.T, changes <-chan netlink.TableChange) netlink.TableChange {
	t.Helper()
	select {
	case c := <-changes:
		return c
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was told")
		return netlink.TableChange{}
	}
}

func TestTableMonitor(t *testing.T) {
	nstest.RequireTool(t, "nft")
	ns := nstest.New(t)
	changes := watchTables(t, ns)
	nft := func(script string) {
		t.Helper()
		must(t, netlink.Do(ns, func() error {
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin, cmd.Stderr = strings.NewReader(script), os.Stderr
			return cmd.Run()
		}))
	}
	for _, c := range []struct{ script, want string }{
		{"add table ip calico", "table calico added or changed"},
		{"add chain ip calico input", "chain input added or changed"},
		{"add rule ip calico input counter accept", "rule of chain input added or changed"},
		{"flush chain ip calico input", "rule of chain input removed"},
		{"add table ip other\nadd chain ip other x\nadd table inet calico\nadd chain inet calico y\nadd chain ip calico output", "chain output added or changed"},
		{"delete table inet calico\nadd set ip calico s { type ipv4_addr; }", "set s added or changed"},
		{"add element ip calico s { 1.1.1.1, 1.1.1.2, 1.1.1.3 }", "element of set s added or changed"},
		{"delete element ip calico s { 1.1.1.2 }", "element of set s removed"},
		{"delete set ip calico s", "set s removed"},
		{"flush ruleset", "chain input removed, chain output removed, table calico removed"},
	} {
		nft(c.script)
		got := next(t, changes)
		if what := strings.Join(got.Objects, ", "); what != c.want || got.Family != unix.NFPROTO_IPV4 || got.Process != "nft" || got.PID == 0 {
			t.Errorf("%s: told %q of family %d by %s, want %q", c.script, what, got.Family, got.By(), c.want)
		}
	}
	nft("add table ip6 calico")
	if got := next(t, changes); got.Family != unix.NFPROTO_IPV6 {
		t.Errorf("got %+v, want the table of IPv6", got)
	}
}
