package iptables

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/difftest"
)

// An agent that is killed at any moment leaves what the next one makes right, whatever is wanted by then.
func TestKilled(t *testing.T) {
	if v := os.Getenv("IPTABLES_KILLED"); v != "" {
		restless(t, v)
		return
	}
	both(t, func(t *testing.T, v Variant) {
		seed := difftest.Seed(t)
		rng := rand.New(rand.NewPCG(seed, 2))
		b, fresh := newBench(t, v), newBench(t, v)
		want := difftest.NewGen(seed).State()
		first := newDriver(t, fresh.ns, v)
		first.Update(want.Delta())
		mustSync(t, first)
		right := fresh.all()
		for i := range difftest.Count(t, "IPTABLES_KILLS", 4) {
			kill(t, b.ns, v, rng)
			d := newDriver(t, b.ns, v)
			d.Update(want.Delta())
			mustSync(t, d)
			until(t, "sets that nobody uses have gone", func() bool {
				d.Resync()
				mustSync(t, d)
				return len(d.dying) == 0
			})
			if now := b.all(); sorted(now) != sorted(right) {
				t.Errorf("after kill %d:\n%s", i, difference(right, now))
			}
			quiet(t, d)
		}
	})
}

// kill runs an agent that makes changes, and kills it at some of them.
func kill(t *testing.T, ns int, v Variant, rng *rand.Rand) {
	t.Helper()
	agent := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	agent.Env = append(os.Environ(), "IPTABLES_KILLED="+v.String(), fmt.Sprint("DIFFTEST_SEED=", rng.Uint64()))
	namespace, err := os.Open(fmt.Sprint("/proc/self/fd/", ns))
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	agent.ExtraFiles = []*os.File{namespace}
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := rng.IntN(5); n >= 0 && lines.Scan(); n-- {
		if !strings.HasPrefix(lines.Text(), "step") {
			t.Errorf("the agent says %s", lines.Text())
		}
	}
	time.Sleep(time.Duration(rng.IntN(40_000)) * time.Microsecond) // into the midst of it
	agent.Process.Kill()
	agent.Wait()
	until(t, "its commands have ended", func() bool { return len(within(ns)) == 0 })
}

// within lists the processes of a namespace.
func within(ns int) (pids []string) {
	name, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", ns))
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range links {
		if of, err := os.Readlink(link); err == nil && of == name {
			pids = append(pids, link)
		}
	}
	return pids
}

// restless makes changes until it is killed.
func restless(t *testing.T, variant string) {
	v, err := ParseVariant(variant)
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := strconv.ParseUint(os.Getenv("DIFFTEST_SEED"), 10, 64)
	g := difftest.NewGen(seed)
	d := newDriver(t, 3, v)
	s := dataplane.NewState()
	for i := range 1000 {
		d.Update(g.Step(&s))
		fmt.Println("step", i)
		if err := d.Sync(context.Background()); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}
