package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// stateDir holds, in the lab's own mount namespace, what the nodes see as their /run,
// /etc/cni and so on. It is a tmpfs: it ends with the lab.
const stateDir = "/run/calico-lab"

// mountLab gives the lab's mount namespace its own /proc and /run. keep stays visible
// even if it lies in /run.
func mountLab(keep string) error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(keep)
	if err != nil {
		return err
	}
	kept, err := os.Open(real)
	if err != nil {
		return err
	}
	defer kept.Close()
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if strings.HasPrefix(real, "/run/") {
		if err := os.MkdirAll(real, 0o700); err != nil {
			return err
		}
		if err := mount(fmt.Sprintf("/proc/self/fd/%d", kept.Fd()), real, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return os.MkdirAll(stateDir, 0o755)
}

// A node's own directories, and their names below its state directory. /run is last: it
// hides the state directory itself.
var nodeDirs = []struct{ path, name string }{
	{"/etc/cni", "etc-cni"},
	{"/opt/cni", "opt-cni"},
	{"/var/lib/calico", "var-lib-calico"},
	{"/var/log/calico", "var-log-calico"},
	{"/run", "run"},
}

// mountNode gives a node's new mount namespace its own directories, which the supervisor
// sees below state, and the /sys of its network namespace.
func mountNode(state string) error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, d := range nodeDirs {
		source := filepath.Join(state, d.name)
		if err := os.MkdirAll(source, 0o755); err != nil {
			return err
		}
		if err := mountPoint(d.path, filepath.Join(state, "overlay")); err != nil {
			return err
		}
		if err := mount(source, d.path, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// mountPoint sees to it that dir exists without making it on the machine: where it is
// missing, its nearest parent is covered by an overlay that has it.
func mountPoint(dir, scratch string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	for {
		if _, err := os.Stat(parent); err == nil {
			break
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		parent = filepath.Dir(parent)
	}
	over := filepath.Join(scratch, strings.ReplaceAll(parent, "/", "_"))
	upper, work := filepath.Join(over, "upper"), filepath.Join(over, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", parent, upper, work)
	if err := mount("overlay", parent, "overlay", 0, options); err != nil {
		return fmt.Errorf("%w (needed because %s is missing: make it, and none is needed)", err, dir)
	}
	return os.MkdirAll(dir, 0o755)
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s %s: %w", fstype, target, err)
	}
	return nil
}
