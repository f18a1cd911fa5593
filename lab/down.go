package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Down ends the lab and removes its directory. That there is no such lab is no error.
func Down(ctx context.Context, name string, out io.Writer) error {
	dir, err := DirOf(name)
	if err != nil {
		return &ExitError{Code: 2, Msg: err.Error()}
	}
	if err := requireRoot(); err != nil {
		return err
	}
	lock, err := dir.lockExisting()
	switch {
	case errors.Is(err, os.ErrNotExist):
		fmt.Fprintf(out, "lab %q is not up\n", name)
		return nil
	case errors.Is(err, errRunning):
		lock, err = dir.end(ctx)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // an `up` that failed may be quicker
			return err
		}
		fmt.Fprintf(out, "lab %q is down\n", name)
		if lock == nil {
			return nil
		}
	case err != nil:
		return err
	default:
		fmt.Fprintf(out, "lab %q was dead; its files are removed\n", name)
	}
	defer lock.Close()
	return dir.remove()
}

// end asks the supervisor to go, and kills it if it does not, and returns the lock that
// it held.
func (d Dir) end(ctx context.Context) (*os.File, error) {
	asked, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := (&Client{dir: d}).call(asked, "down", nil, io.Discard, nil)
	if lock, lockErr := d.awaitLock(asked); lockErr == nil {
		return lock, nil
	}
	if killErr := d.kill(); killErr != nil {
		return nil, fmt.Errorf("lab %q does not answer (%v) and cannot be killed: %w", d.Name(), err, killErr)
	}
	ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return d.awaitLock(ctx)
}

// awaitLock waits for the last process of the lab to end.
func (d Dir) awaitLock(ctx context.Context) (*os.File, error) {
	for {
		lock, err := d.lockExisting()
		if !errors.Is(err, errRunning) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lab %q does not end: %w", d.Name(), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// kill kills the process that listens on the control socket, with which the lab ends.
func (d Dir) kill() error {
	conn, err := d.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		peer, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return err
	}
	if peer.Pid <= 1 {
		return errors.New("its process is not visible from here")
	}
	return unix.Kill(int(peer.Pid), unix.SIGKILL)
}
