package lab_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/calicogo/calico/lab/labtest"
)

// The demo takes its lab down also when it is interrupted.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	cmd := exec.Command(filepath.Join(l.Bin, "calico-lab"), "demo", "--nodes", "2")
	cmd.Env = l.Environ()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var trace labtest.Trace
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "busybox01 on node1") {
			trace = l.Trace(t, "demo")
			cmd.Process.Signal(os.Interrupt)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("an interrupted demo ends with exit code 0")
	}
	trace.Gone(t)
	if left, _ := os.ReadDir(l.Base); len(left) > 0 {
		t.Errorf("files left: %v", left)
	}
}

// apply names the node on which an object is not in force.
func TestApplyNamesWhoLags(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	l.Must(t, "up", "--nodes", "2")
	file := filepath.Join(t.TempDir(), "namespace.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stopped := l.PidInside(t, "node2")
	if err := syscall.Kill(stopped, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r := l.Run(t, "apply", "-f", file, "--timeout", "300ms")
	if r.Code != 1 || !strings.Contains(r.Stderr, "node2") || strings.Contains(r.Stderr, "node1") {
		t.Errorf("exit code %d, %q", r.Code, r.Stderr)
	}
	if err := syscall.Kill(stopped, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	l.Must(t, "apply", "-f", file)
}
