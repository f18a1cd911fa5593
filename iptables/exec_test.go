package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/internal/difftest"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// A command finds all of its input even if the agent dies at once: it is a file, and not a pipe, of which
// it would take a line cut short for a line.
func TestInputIsAFile(t *testing.T) {
	nstest.RequireTool(t, "stat")
	c := command{ns: netlink.Current, path: find("stat"), args: []string{"-L", "-c", "%F %s", "/dev/fd/0"}, stdin: bytes.Repeat([]byte("x"), 1<<20)}
	var out []byte
	err := c.run(t.Context(), func(r io.Reader) (err error) { out, err = io.ReadAll(r); return err })
	if got := strings.TrimSpace(string(out)); err != nil || got != "regular file 1048576" {
		t.Errorf("standard input is a %s: %v", got, err)
	}
}

// A command that waits for something ends with the agent.
func TestCommandEndsWithTheAgent(t *testing.T) {
	if os.Getenv("IPTABLES_AGENT") != "" {
		c := command{ns: netlink.Current, path: find("sh"), args: []string{"-c", "echo $$ >" + os.Getenv("IPTABLES_AGENT") + "; exec sleep 1000"}}
		c.run(context.Background(), nil)
		return
	}
	t.Parallel()
	file := t.TempDir() + "/pid"
	agent := exec.Command(os.Args[0], "-test.run=^TestCommandEndsWithTheAgent$")
	agent.Env = append(os.Environ(), "IPTABLES_AGENT="+file)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	until(t, "the command has begun", func() bool {
		b, _ := os.ReadFile(file)
		n, _ := fmt.Sscanf(string(b), "%d\n", &pid)
		return n == 1
	})
	agent.Process.Kill()
	agent.Wait()
	defer func() {
		if t.Failed() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	until(t, "the command has ended", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(stat, []byte(") Z "))
	})
}

// A command that succeeded is not taken for one that failed because something that it began still runs.
func TestStandardErrorIsLeftOpen(t *testing.T) {
	t.Parallel()
	for _, read := range []func(io.Reader) error{nil, func(r io.Reader) error { return nil }} {
		c := command{ns: netlink.Current, path: find("sh"), args: []string{"-c", "sleep 3 >/dev/null & exit 0"}}
		if err := c.run(t.Context(), read); err != nil {
			t.Error(err)
		}
		c.args[1] = "echo no >&2; sleep 3 >/dev/null & exit 1"
		var f *failure
		if err := c.run(t.Context(), read); !errors.As(err, &f) || f.code != 1 || f.stderr != "no" {
			t.Errorf("got %v, want exit code 1 that says no", err)
		}
	}
}

// Whoever keeps a command's output open is waited for no longer than the command may take.
func TestOutputIsLeftOpen(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	hold, release := filepath.Join(t.TempDir(), "hold"), make(chan struct{})
	if err := syscall.Mkfifo(hold, 0o600); err != nil {
		t.Fatal(err)
	}
	c := command{ns: netlink.Current, path: find("sh"), args: []string{"-c", "cat " + hold + " & exit 0"}}
	go func() {
		c.run(ctx, func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
		close(release)
	}()
	select {
	case <-release:
	case <-time.After(20 * time.Second):
		t.Error("the command is still waited for")
	}
	f, err := os.OpenFile(hold, os.O_WRONLY, 0) // what keeps it open ends
	if err == nil {
		f.Close()
	}
}

// While another program holds the lock for good it is waited for once, and for a moment at each Sync then; ours come when it lets go.
func TestLockIsHeld(t *testing.T) {
	nstest.RequireTool(t, "iptables-legacy-restore")
	nstest.RequireTool(t, "ipset")
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "lock"))
	lock, err := os.OpenFile(os.Getenv("XTABLES_LOCKFILE"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	d, err := New(nstest.New(t), Config{Variant: Legacy, LockTime: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	d.Update(sample().Delta())
	for _, want := range []string{"2", "1", "1"} {
		if got := d.patience(); got != want {
			t.Errorf("it waits for %s s, want %s", got, want)
		}
		err := d.Sync(context.Background())
		if err == nil || !strings.Contains(err.Error(), "another program holds the lock") || strings.Contains(err.Error(), "ip6tables") {
			t.Errorf("error %v, want one that tells of the lock, which both families have in common", err)
		}
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	mustSync(t, d)
	if got := d.patience(); got != "2" {
		t.Errorf("it waits for %s s, want 2", got)
	}
	// What IPv6 alone has to do is not forgotten.
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	c := dataplane.NewDelta()
	e := *sample().Endpoints["cali1"]
	e.Addrs = e.Addrs[:1]
	c.Endpoints["cali1"] = &e
	d.Update(c)
	for range 2 {
		if err := d.Sync(context.Background()); err == nil || !strings.Contains(err.Error(), "ip6tables") {
			t.Errorf("error %v, want one of ip6tables", err)
		}
	}
}

// A node without ip6tables has IPv4's policy, and is told of what it lacks.
func TestNoIP6Tables(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		d := newDriver(t, nstest.New(t), v)
		var err error
		if d.tools, err = d.findTools(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, b := range d.tools.found {
			delete(b.restore, dataplane.IPv6)
			delete(b.save, dataplane.IPv6)
		}
		s := sample()
		for _, on := range []bool{true, false} {
			s.Settings.IPv6 = on
			d.Update(s.Delta())
			err := d.Sync(context.Background())
			said := strings.Join(d.Warnings(), "\n")
			if on {
				said = fmt.Sprint(err)
			}
			if !strings.Contains(said, "ip6tables-"+v.String()+"-restore is not on PATH") || !on && err != nil {
				t.Errorf("with IPv6 %v: error %v, warnings %q", on, err, d.Warnings())
			}
			if d.families[0].im == nil || !d.families[0].trusted {
				t.Error("IPv4 is not in force")
			}
		}
		if err := d.Clean(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("waited for: %s", what)
			t.FailNow()
		}
	}
}

// A set that cannot be made larger stays as it is.
func TestSetDoesNotGrow(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		d := newDriver(t, b.ns, v)
		d.Update(sample().Delta())
		mustSync(t, d)
		was := b.run("ipset -sorted save cali40s.abc")
		had := []filter.Element{{Prefix: netip.MustParsePrefix("10.5.0.0/16")}, {Prefix: netip.MustParsePrefix("fd00::/64")}}
		if err := d.swap(d.families[0], "cali40s.abc", filter.Nets, 100, had); err == nil {
			t.Fatal("a member of another family was taken")
		}
		if now := b.run("ipset -sorted save cali40s.abc"); now != was {
			t.Errorf("got %swant %s", now, was)
		}
		if names := b.run("ipset list -n"); strings.Contains(names, "cali4t") {
			t.Errorf("left: %s", names)
		}
	})
}

// The nft tool's rules in a table of iptables' name hold up nothing where that variant is not used.
func TestTableThatCannotBeShown(t *testing.T) {
	nstest.RequireTool(t, "nft")
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		b.run("nft add table ip filter")
		b.run(`nft add chain ip filter FORWARD "{ type filter hook forward priority 0; }"`)
		b.run(`nft add rule ip filter FORWARD numgen random mod 2 0 counter`)
		d := newDriver(t, b.ns, v)
		d.Update(sample().Delta())
		err := d.Sync(context.Background())
		w := strings.Join(d.Warnings(), "\n")
		switch {
		case v == NFT && (err == nil || !strings.Contains(err.Error(), "move them to a table of another name")):
			t.Errorf("error %v, want advice", err)
		case v == Legacy && (err != nil || !strings.Contains(w, "iptables (nft): table filter")):
			t.Errorf("error %v, warnings %q", err, w)
		}
		if err := d.Clean(context.Background()); err != nil {
			t.Errorf("Clean: %v", err)
		}
	})
}

// Many sets that go at once do, and those that others use hold up no others. Clean says which are left.
func TestManySetsGo(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		b := newBench(t, v)
		d := newDriver(t, b.ns, v)
		s := dataplane.NewState()
		s.Settings.Backend = dataplane.Iptables
		p := &dataplane.Policy{ID: difftest.Web()}
		s.Policies[p.ID] = p
		s.Endpoints["cali1"] = &dataplane.Endpoint{
			Interface: "cali1", Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.1")},
			Ingress: []dataplane.TierPolicies{{Tier: "default", Policies: []dataplane.PolicyID{p.ID}, Default: dataplane.Deny}},
		}
		const n = 200
		for i := range n {
			id := dataplane.SetID(fmt.Sprintf("s:%03d", i))
			s.Sets[id] = difftest.Members("10.1.0.0/16")
			p.Ingress = append(p.Ingress, dataplane.Rule{Action: dataplane.Allow, Src: dataplane.Peer{Sets: []dataplane.SetID{id}}})
		}
		d.Update(s.Delta())
		mustSync(t, d)
		for i := range 2 * maxInUse {
			b.run(fmt.Sprintf("iptables -A OUTPUT -m set --match-set cali40s.%03d src", i))
		}
		gone := dataplane.NewDelta()
		gone.Policies[p.ID] = &dataplane.Policy{ID: p.ID}
		d.Update(gone)
		until(t, "all sets have gone but those that others use", func() bool {
			mustSync(t, d)
			return strings.Count(b.run("ipset list -n"), "cali40s.") == 2*maxInUse
		})
		for range 2 * burials { // half of them at a time
			mustSync(t, d)
		}
		if d.hopeful() {
			t.Error("sets in use are tried at every Sync")
		}
		err := d.Clean(context.Background())
		if want := fmt.Sprintf("%d sets of ours", 2*maxInUse); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Clean: %v, want one that says %q", err, want)
		}
		b.run("iptables -F OUTPUT")
		if err := d.Clean(context.Background()); err != nil {
			t.Error(err)
		}
		if names := b.run("ipset list -n"); names != "" {
			t.Errorf("left: %s", names)
		}
	})
}

// A set that opens waits for packets that met the rules of an earlier Sync.
func TestOpeningWaits(t *testing.T) {
	both(t, func(t *testing.T, v Variant) {
		d := newDriver(t, nstest.New(t), v)
		d.Update(sample().Delta())
		mustSync(t, d)
		if d.grace.ruled.IsZero() {
			t.Error("it does not know that rules changed")
		}
		c := dataplane.NewDelta()
		c.Sets["s:abc"] = &dataplane.SetDelta{Add: []dataplane.Member{{Prefix: netip.MustParsePrefix("10.3.0.0/16")}}}
		d.Update(c)
		mustSync(t, d)
		if !d.grace.ruled.IsZero() {
			t.Error("the set was opened without waiting")
		}
	})
}
