package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// commandTime bounds a command, beside the time that it may wait for the lock.
const commandTime = 2 * time.Minute

// command is a program to run in a network namespace.
type command struct {
	ns    int
	path  string
	args  []string
	stdin []byte
}

// failure is a command that did not succeed.
type failure struct {
	command string // its name
	code    int    // -1: a signal ended it
	stderr  string
}

func (f *failure) Error() string {
	if f.stderr == "" {
		return fmt.Sprintf("%s: exit code %d", f.command, f.code)
	}
	return f.command + ": " + f.stderr
}

// run runs the command and has read take in its output; nil: it is thrown away. No shell has a part in it. The command ends
// with this process, so that none waits for a lock that the next agent lets go and then does what was wanted long ago; and its input
// is a file, so that none reads half a line: to ipset, 10.0.0.0/1 is as good as 10.0.0.0/16.
func (c *command) run(ctx context.Context, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	var stderr limited
	stdin, err := fileOf(c.stdin)
	if err != nil {
		return fmt.Errorf("%s: its input: %w", filepath.Base(c.path), err)
	}
	defer stdin.Close()
	err = netlink.Do(c.ns, inThread(c.ns, func() error {
		cmd := exec.CommandContext(ctx, c.path, c.args...)
		cmd.Stdin, cmd.Stderr = stdin, &stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // of the thread that waits for it
		cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+searchPath())
		cmd.WaitDelay = time.Second
		return start(cmd, read)
	}))
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: not done in time: %w", filepath.Base(c.path), ctx.Err())
	case errors.As(err, &exit):
		return &failure{filepath.Base(c.path), exit.ExitCode(), stderr.String()}
	case err != nil:
		return fmt.Errorf("%s: %w", filepath.Base(c.path), err)
	}
	return nil
}

// inThread has f run in a thread that lasts as long as it, where netlink.Do does not see to that.
func inThread(ns int, f func() error) func() error {
	if ns != netlink.Current {
		return f
	}
	return func() error { return netlink.Thread(f) }
}

// fileOf returns a file in memory that is to be read from the start.
func fileOf(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("input", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "input")
	_, err = f.Write(content)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func start(cmd *exec.Cmd, read func(io.Reader) error) error {
	if read == nil {
		return done(cmd.Run())
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := read(out); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return err
	}
	_, err = io.Copy(io.Discard, out)
	return errors.Join(err, done(cmd.Wait()))
}

// done takes it for success that a command which succeeded has left its standard error open, to a process of
// its own; on a busy machine any process that is just being forked may hold it for a while.
func done(err error) error {
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

// limited keeps the first bytes that are written to it.
type limited struct{ bytes.Buffer }

const maxStderr = 4096

func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), maxStderr-l.Len())])
	return len(p), nil
}

// String is what was written, in one line.
func (l *limited) String() string {
	return strings.Join(strings.FieldsFunc(l.Buffer.String(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

var systemDirs = []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"}

// searchPath is PATH and where such tools are.
func searchPath() string {
	return strings.Join(append(filepath.SplitList(os.Getenv("PATH")), systemDirs...), string(filepath.ListSeparator))
}

// find returns the path of a program; "": there is none.
func find(name string) string {
	for _, dir := range filepath.SplitList(searchPath()) {
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}
