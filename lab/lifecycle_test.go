package lab_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/calicogo/calico/lab/labtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "6") // the tests wait more than they work
	code := m.Run()
	labtest.RemoveBinaries()
	os.Exit(code)
}

// bare are the flags of a lab with nothing in it but nodes.
var bare = []string{"up", "--no-agents"}

func up(args ...string) []string { return append(append([]string{}, bare...), args...) }

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	l.Must(t, up("--nodes", "3", "--pool6", "fd00:10::/64")...)
	trace := l.Trace(t, "lab")
	if len(trace.Namespaces) < 3+2*3 { // net, uts and more of the lab, net, mnt and uts of each node
		t.Errorf("the lab has only the namespaces %v", trace.Namespaces)
	}
	l.Must(t, "ping", "node1", "node3", "-c", "2")
	l.Must(t, "down")
	trace.Gone(t)
	if left, _ := os.ReadDir(l.Base); len(left) > 0 {
		t.Errorf("files left: %v", left)
	}
	if out := l.Must(t, "down"); !strings.Contains(out, "not up") {
		t.Errorf("down of nothing says %q", out)
	}
}

func TestKilled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		pid  func(labtest.Trace) int
	}{
		{"init", func(tr labtest.Trace) int { return tr.Init }},
		{"supervisor", func(tr labtest.Trace) int { return tr.Supervisor }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := labtest.New(t)
			l.Must(t, up("--nodes", "2")...)
			trace := l.Trace(t, "lab")
			if err := syscall.Kill(c.pid(trace), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			trace.Gone(t)
			if r := l.Run(t, "status"); r.Code != 1 || !strings.Contains(r.Stderr, "is not up") {
				t.Errorf("status of a dead lab: exit code %d, %q", r.Code, r.Stderr)
			}
			l.Must(t, up("--nodes", "1")...) // over the stale directory
			l.Must(t, "ping", "node1", "172.30.0.1")
		})
	}
}

func TestDeadLabIsRemovedByDown(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	l.Must(t, up("--nodes", "1")...)
	trace := l.Trace(t, "lab")
	syscall.Kill(trace.Supervisor, syscall.SIGKILL)
	trace.Gone(t)
	l.Must(t, "down")
	if _, err := os.Stat(filepath.Join(l.Base, "lab")); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestDownKillsWhatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	l.Must(t, up("--nodes", "1")...)
	trace := l.Trace(t, "lab")
	if err := syscall.Kill(trace.Supervisor, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	l.Must(t, "down")
	trace.Gone(t)
}

// TestDownWaitsForEtcd, which writes to the directory that down removes, however long pid 1
// takes to end.
func TestDownWaitsForEtcd(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	l.Must(t, up("--nodes", "1")...)
	trace := l.Trace(t, "lab")
	etcds := func() (pids []int) {
		for pid := range trace.Processes {
			if args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(args), "serve-etcd") {
				pids = append(pids, pid)
			}
		}
		return pids
	}
	if pids := etcds(); len(pids) != 1 {
		t.Fatalf("processes of etcd: %v", pids)
	}
	if err := syscall.Kill(trace.Init, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(300*time.Millisecond, func() { syscall.Kill(trace.Init, syscall.SIGCONT) })
	l.Must(t, "down")
	if pids := etcds(); pids != nil {
		t.Errorf("the lab is down, and etcd runs: %v", pids)
	}
	trace.Gone(t)
}

// The lifeline is a pipe that only the test process holds, so a killed one ends its labs.
func TestLifeline(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	cmd := exec.Command(filepath.Join(l.Bin, "calico-lab"), up("--nodes", "1", "--lifeline-fd", "3")...)
	cmd.Env = l.Environ()
	cmd.ExtraFiles = []*os.File{read}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	read.Close()
	trace := l.Trace(t, "lab")
	write.Close()
	trace.Gone(t)
}

func TestTwoLabs(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	l.Must(t, up("--nodes", "2", "--name", "a")...)
	l.Must(t, up("--nodes", "2", "--name", "b")...)
	if r := l.Run(t, up("--name", "a")...); r.Code != 1 || !strings.Contains(r.Stderr, "up already") {
		t.Errorf("second up: exit code %d, %q", r.Code, r.Stderr)
	}
	l.Must(t, "down", "--name", "a")
	l.Must(t, "ping", "--name", "b", "node1", "node2")
	if out := l.Must(t, "env", "--name", "b"); !strings.Contains(out, "ETCD_ENDPOINTS=unix://"+l.Base+"/b/etcd.sock") {
		t.Errorf("env prints %q", out)
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	l.Must(t, up("--nodes", "2")...)
	cmd := l.Command(context.Background(), "exec", "node2", "--", "sh", "-c", "cat; hostname; echo oops >&2; exit 7")
	cmd.Stdin = strings.NewReader("given\n")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if string(out) != "given\nnode2\n" || stderr.String() != "oops\n" || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("exec printed %q and %q, %v", out, stderr.String(), err)
	}
	// A node's own directories: what one writes neither the other nor the machine sees.
	for _, dir := range []string{"/run", "/var/lib/calico", "/etc/cni", "/opt/cni", "/var/log/calico"} {
		l.Must(t, "exec", "node1", "--", "touch", dir+"/lab-test")
		if r := l.Run(t, "exec", "node2", "--", "test", "-e", dir+"/lab-test"); r.Code != 1 {
			t.Errorf("node2 sees node1's %s", dir)
		}
		if _, err := os.Stat(dir + "/lab-test"); err == nil {
			t.Errorf("the machine sees node1's %s", dir)
		}
	}
}

// A client that hangs up takes its command with it.
func TestExecHangUp(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	l.Must(t, up("--nodes", "1")...)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cmd := l.Command(ctx, "exec", "node1", "--", "sh", "-c", "echo started; exec sleep 1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	cancel()
	// The command holds the other end of the pipe until it is dead.
	if _, err := out.Read(make([]byte, 8)); err == nil {
		t.Error("the command goes on")
	}
	cmd.Wait()
}

// A pod that is removed takes its namespaces with it: nobody holds on to them, the agent's
// threads included.
func TestRemovedPodIsGone(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	l.Must(t, "up", "--nodes", "1")
	before := l.Trace(t, "lab").Namespaces
	for range 5 {
		// Its processes die with it, orphans in groups and sessions of their own included.
		l.Must(t, "run", "a", "--", "sh", "-c", "sleep 1000 & setsid sleep 1000 & exit 0")
		l.Must(t, "exec", "a", "--", "sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 &")
		l.Must(t, "rm", "a")
	}
	await(t, "the namespaces of the pods are gone", func() bool {
		return maps.Equal(before, l.Trace(t, "lab").Namespaces)
	})
}
