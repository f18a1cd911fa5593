// Package nstest gives tests network namespaces of their own. They are bound nowhere:
// a namespace ends with the test that made it, whatever happens.
package nstest

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// RequireRoot skips the test unless it runs as root; where CI=true it fails instead.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		Missing(t, "root")
	}
}

// RequireTool skips the test if the program is not on PATH; where CI=true it fails.
func RequireTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		Missing(t, name)
	}
}

// Missing skips the test for want of what; where CI=true it fails.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s", what)
	}
	t.Skipf("this test needs %s", what)
}

// New makes a network namespace with lo up and returns its descriptor, which is closed
// when the test ends.
func New(t testing.TB) int {
	t.Helper()
	RequireRoot(t)
	fd := -1
	err := netlink.Thread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		return netlink.LoopbackUp()
	})
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
