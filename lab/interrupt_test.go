package lab_test

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// A demo that nobody can take down any more takes its lab with it.
func TestDemoKilled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(*exec.Cmd, io.Closer)
	}{
		{"killed", func(cmd *exec.Cmd, _ io.Closer) { cmd.Process.Kill() }},
		{"nobody listens", func(_ *exec.Cmd, out io.Closer) { out.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := labtest.New(t)
			cmd := l.Command(t.Context(), "demo", "--nodes", "2")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if strings.Contains(lines.Text(), "busybox01 on node1") {
					break
				}
			}
			trace := l.Trace(t, "demo")
			c.end(cmd, out)
			cmd.Wait()
			trace.Gone(t)
		})
	}
}

// An apply that waits for its standard input ends by Ctrl-C.
func TestApplyInterrupted(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	l.Must(t, up("--nodes", "1")...)
	for _, program := range []string{"calico-lab", "calicoctl"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(l.Bin, program), "apply", "-f", "-")
		cmd.Env = l.Environ()
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer write.Close()
		defer read.Close()
		write.WriteString("# nothing yet\n")
		var stderr strings.Builder
		cmd.Stdin, cmd.Stderr = read, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, program+" has read the pipe empty", func() bool {
			n, err := unix.IoctlGetInt(int(read.Fd()), unix.TIOCINQ)
			return err == nil && n == 0
		})
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.HasSuffix(stderr.String(), "interrupted\n") {
			t.Errorf("%s apply: exit code %d, want 1; printed %q", program, code, stderr.String())
		}
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
	r := l.Run(t, "apply", "-f", file, "--timeout", "3s") // ample for node1
	if r.Code != 1 || !strings.Contains(r.Stderr, "node2") || strings.Contains(r.Stderr, "node1") {
		t.Errorf("exit code %d, %q", r.Code, r.Stderr)
	}
	if err := syscall.Kill(stopped, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	l.Must(t, "apply", "-f", file)
}
