package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// programs are copied into the box, to /bin.
var programs = []string{"calico", "calico-cni", "calicoctl", "bench-empty"}

// lifelineFD is a pipe that the process outside holds open while it lives.
const lifelineFD = 3

// outside starts this program inside namespaces of its own, as their pid 1: the kernel ends
// everything in them with it.
func outside(ctx context.Context, o options) error {
	arg, err := json.Marshal(o)
	if err != nil {
		return err
	}
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(o.Bin, p)); err != nil {
			return fmt.Errorf("%w: build the programs first, as `make bench` does", err)
		}
	}
	if o.Disk != "" {
		dir, err := os.MkdirTemp(o.Disk, "calico-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.Disk = dir
		if arg, err = json.Marshal(o); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	cmd := exec.Command(self, "inside", string(arg))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{r}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Setsid:     true,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	r.Close()
	defer context.AfterFunc(ctx, func() { w.Close() })()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return fmt.Errorf("ended: %v", err)
	}
	return errors.Join(err, ctx.Err())
}

// inside is pid 1 of the box.
func inside(args []string) error {
	var o options
	if len(args) != 1 || os.Getpid() != 1 {
		return errors.New("this command is internal")
	}
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return err
	}
	unix.CloseOnExec(lifelineFD)
	go func() {
		os.NewFile(lifelineFD, "lifeline").Read(make([]byte, 1))
		os.Exit(1) // and everything else with it
	}()
	if err := build(o); err != nil {
		return fmt.Errorf("build the box: %w", err)
	}
	if err := netlink.Thread(netlink.LoopbackUp); err != nil {
		return err
	}
	b, err := newBench(o)
	if err != nil {
		return err
	}
	return measure(context.Background(), b)
}

// build makes the box's root directory, on a tmpfs, and moves into it.
func build(o options) error {
	files := map[string]*os.File{}
	for _, p := range programs {
		f, err := os.Open(filepath.Join(o.Bin, p))
		if err != nil {
			return err
		}
		defer f.Close()
		files[p] = f
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	files["bench"] = self
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	var disk *os.File
	if o.Disk != "" {
		if disk, err = os.Open(o.Disk); err != nil {
			return err
		}
		defer disk.Close()
	}
	dev, err := os.Open("/dev")
	if err != nil {
		return err
	}
	defer dev.Close()
	const root = "/tmp" // exists everywhere; covered here alone
	if err := mount("bench", root, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	if err := furnish(root, files); err != nil {
		return err
	}
	if err := mount(fmt.Sprintf("/proc/self/fd/%d", dev.Fd()), root+"/dev", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if disk != nil {
		if err := bindDisk(disk, root); err != nil {
			return err
		}
	}
	if err := bindSystem(root); err != nil {
		return err
	}
	if err := mount("proc", root+"/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := mount("sysfs", root+"/sys", "sysfs", 0, ""); err != nil {
		return err
	}
	if err := unix.Chroot(root); err != nil {
		return err
	}
	return os.Chdir("/")
}

// furnish makes the directories and copies the programs.
func furnish(root string, files map[string]*os.File) error {
	for _, d := range []string{"bin", "dev", "proc", "sys", "run", "tmp", "var/lib/calico", "var/lib/etcd", "etc/cni/net.d", "opt/cni/bin"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink("../run", filepath.Join(root, "var/run")); err != nil {
		return err
	}
	for name, f := range files {
		to, err := os.OpenFile(filepath.Join(root, "bin", name), os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		if _, err := io.Copy(to, f); err != nil {
			return err
		}
		if err := to.Close(); err != nil {
			return err
		}
	}
	return nil
}

// bindSystem puts where the commands of the system are at their places, for the agent to run iptables and
// ipset.
func bindSystem(root string) error {
	for _, dir := range []string{"/usr", "/lib", "/lib64", "/sbin", "/etc/alternatives"} {
		to, err := os.Readlink(dir)
		st, statErr := os.Stat(dir)
		switch {
		case statErr != nil || !st.IsDir():
			continue
		case err == nil:
			err = os.Symlink(to, root+dir)
		default:
			err = errors.Join(os.MkdirAll(root+dir, 0o755), mount(dir, root+dir, "", unix.MS_BIND|unix.MS_REC, ""))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bindDisk puts directories of a disk where etcd and the agent write.
func bindDisk(disk *os.File, root string) error {
	for name, at := range map[string]string{"etcd": "/var/lib/etcd", "calico": "/var/lib/calico"} {
		if err := unix.Mkdirat(int(disk.Fd()), name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		if err := mount(fmt.Sprintf("/proc/self/fd/%d/%s", disk.Fd(), name), root+at, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s %s: %w", fstype, target, err)
	}
	return nil
}
