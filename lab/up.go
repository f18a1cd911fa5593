package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Up makes the lab of that name and returns when it is ready; progress goes to out. If
// lifeline is not nil the lab ends at its end of file. When ctx ends before the lab is
// ready the lab goes.
func Up(ctx context.Context, name string, o Options, out io.Writer, lifeline *os.File) error {
	if err := o.Validate(); err != nil {
		return &ExitError{Code: 2, Msg: err.Error()}
	}
	dir, err := DirOf(name)
	if err != nil {
		return &ExitError{Code: 2, Msg: err.Error()}
	}
	if err := requireRoot(); err != nil {
		return err
	}
	lock, err := dir.lock()
	if errors.Is(err, errRunning) {
		return dir.upAlready(ctx)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := dir.clear(); err != nil {
		return fmt.Errorf("clean up after a dead lab: %w", err)
	}
	if err := start(ctx, boot{Dir: dir, Options: o, Lifeline: lifeline != nil}, lock, lifeline, out); err != nil {
		return errors.Join(err, dir.remove())
	}
	return nil
}

// upAlready says that the lab is up, and whether its etcd is not.
func (d Dir) upAlready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	also, stopped := "", &ExitError{}
	if errors.As((&Client{dir: d}).call(ctx, "etcd", EtcdCheck, io.Discard, nil), &stopped) {
		also = ", but " + stopped.Msg
	}
	return fmt.Errorf("lab %q is up already%s; `calico lab down --name %s` ends it", d.Name(), also, d.Name())
}

// start starts init and follows its progress.
func start(ctx context.Context, b boot, lock, lifeline *os.File, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(b.Dir.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	progress, written, err := os.Pipe()
	if err != nil {
		return err
	}
	defer progress.Close()
	cmd := exec.Command(self, "init", encode(b))
	cmd.Dir = "/"
	cmd.Stderr = log // neither stdin nor stdout: the daemon outlives the terminal
	cmd.ExtraFiles = []*os.File{written, lock}
	if lifeline != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, lifeline)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	err = cmd.Start()
	written.Close()
	if err != nil {
		return fmt.Errorf("make the lab's namespaces: %w", err)
	}
	if err := follow(ctx, progress, out); err != nil {
		if errors.Is(err, errHungUp) {
			err = fmt.Errorf("the lab ended before it was ready: %s", lastWords(b.Dir.log()))
		}
		cmd.Process.Kill()
		cmd.Wait()
		return err
	}
	return cmd.Process.Release()
}

// follow copies progress to out until the lab is ready or ctx ends.
func follow(ctx context.Context, progress *os.File, out io.Writer) error {
	ended := make(chan error, 1)
	go func() { ended <- answer(progress, out, nil) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return errors.New("interrupted")
	}
}

func requireRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("calico lab needs root, because it makes network, mount and pid namespaces: run it with sudo")
	}
	return nil
}
