// Package labtest gives tests labs of their own, made by the real binaries. A lab ends
// with its test, even if the test process is killed.
package labtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/calicogo/calico/internal/nstest"
)

// Lab is a directory for labs, and the command line that runs them.
type Lab struct {
	Base   string // CALICO_LAB_DIR
	Bin    string // the binaries' directory
	Client string // that of calicoctl and of the calico-lab whose commands only ask

	lifeline *os.File // read end, for the labs
}

// Result is what a command printed and its exit code.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// New returns a Lab in which nothing is up. When the test ends, whatever is up goes.
func New(t testing.TB) *Lab {
	t.Helper()
	nstest.RequireRoot(t)
	bin := Binaries(t)
	// Not t.TempDir: the path of a Unix socket has 107 bytes at most.
	base, err := os.MkdirTemp("", "lab")
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{Base: base, Bin: bin, Client: clients(bin), lifeline: read}
	t.Cleanup(func() {
		if t.Failed() {
			l.showLogs(t)
		}
		if r := l.Run(t, "down", "--all"); r.Code != 0 {
			t.Errorf("down --all: exit code %d: %s", r.Code, r.Stderr)
		}
		write.Close()
		read.Close()
		os.RemoveAll(base)
	})
	return l
}

// Environ is the environment of the command line.
func (l *Lab) Environ() []string {
	return append(os.Environ(), "CALICO_LAB_DIR="+l.Base, "GORACE=atexit_sleep_ms=0", "PATH="+l.Bin+":"+os.Getenv("PATH"))
}

// Command is a command of `calico lab`. What it starts ends with the test process.
func (l *Lab) Command(ctx context.Context, args ...string) *exec.Cmd {
	bin, verb := l.Client, ""
	if len(args) > 0 {
		verb = args[0]
	}
	if verb == "up" || verb == "demo" { // the lab's own processes are the same program
		bin = l.Bin
	}
	if verb == "up" {
		args = append(args, "--lifeline-fd", "3")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "calico-lab"), args...)
	cmd.Env = l.Environ()
	if verb == "up" {
		cmd.ExtraFiles = []*os.File{l.lifeline}
	}
	return cmd
}

// Run runs a command of `calico lab`.
func (l *Lab) Run(t testing.TB, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := l.Command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("calico lab %q: %v", args, err)
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Must is Run of a command that must succeed; it returns standard output.
func (l *Lab) Must(t testing.TB, args ...string) string {
	t.Helper()
	r := l.Run(t, args...)
	if r.Code != 0 {
		t.Fatalf("calico lab %q: exit code %d\n%s%s", args, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// showLogs logs the end of each log of each lab.
func (l *Lab) showLogs(t testing.TB) {
	files, _ := filepath.Glob(filepath.Join(l.Base, "*", "*.log"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && len(b) > 0 {
			t.Logf("%s:\n%s", f, b[max(0, len(b)-3000):])
		}
	}
}
