package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Descriptors that `up` hands to init, and init to the supervisor.
const (
	progressFD = 3 // written: lines of progress, protocol.go
	lockFD     = 4 // the directory, locked
	lifelineFD = 5 // read by init: the lab ends at its end of file; may be absent
)

// boot is what init and the supervisor are told, as their argument.
type boot struct {
	Dir      Dir
	Options  Options
	Lifeline bool
}

func parseBoot(arg string) (boot, error) {
	var b boot
	if err := json.Unmarshal([]byte(arg), &b); err != nil {
		return b, fmt.Errorf("this command is internal to calico lab: %w", err)
	}
	return b, nil
}

// Init is pid 1 of a lab. It returns, and with it ends the lab, when the supervisor or the
// lifeline does.
func Init(arg string) error {
	b, err := parseBoot(arg)
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return fmt.Errorf("this command is internal to calico lab: it must be pid 1")
	}
	up := &progress{os.NewFile(progressFD, "progress")}
	supervisor, err := initLab(b, arg, up)
	if err != nil {
		up.end(err)
		return err
	}
	up.w.Close() // the supervisor's copy is the last
	if b.Lifeline {
		go func() {
			awaitEOF(lifelineFD)
			os.Exit(0) // the kernel kills everything else in the pid namespace
		}()
	}
	return reapUntil(supervisor)
}

// initLab does what only pid 1 can and starts the supervisor, whose pid it returns.
func initLab(b boot, arg string, up *progress) (int, error) {
	if b.Lifeline {
		unix.CloseOnExec(lifelineFD)
	}
	if err := mountLab(string(b.Dir)); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	lock := os.NewFile(lockFD, "lock")
	defer lock.Close()
	p, err := os.StartProcess(self, []string{self, "supervise", arg}, &os.ProcAttr{
		Dir:   "/",
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, up.w, lock},
	})
	if err != nil {
		return 0, fmt.Errorf("start the supervisor: %w", err)
	}
	return p.Pid, nil
}

// reapUntil waits for children, orphans that became ours included, until pid has ended.
func reapUntil(pid int) error {
	for {
		var status syscall.WaitStatus
		dead, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return fmt.Errorf("wait for children: %w", err)
		case dead == pid && status.ExitStatus() != 0:
			return fmt.Errorf("the supervisor ended: exit status %d, signal %d", status.ExitStatus(), status.Signal())
		case dead == pid:
			return nil
		}
	}
}

func awaitEOF(fd int) {
	buf := make([]byte, 1)
	for {
		n, err := syscall.Read(fd, buf)
		if err != syscall.EINTR && n <= 0 {
			return
		}
	}
}
