package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"
)

// StartDatastore starts etcd with its data in dir. It serves on the Unix socket and on
// the TCP address, and returns when it is ready; done gets the reason if it ends later.
// The package cmd/calico-lab has it, so that this one does not link a server.
type StartDatastore func(dir, socket string, listen netip.AddrPort) (done <-chan error, err error)

const etcdPort = 2379

// etcdArg is what the process of etcd is told, as its argument.
type etcdArg struct {
	Data, Socket string
	Listen       netip.AddrPort
}

// etcdReadyFD is where the process of etcd says that it serves, or why it does not.
const etcdReadyFD = 3

// ServeEtcd is the process of a lab's etcd. It ends when it is killed.
func ServeEtcd(arg string, start StartDatastore) error {
	var a etcdArg
	if err := json.Unmarshal([]byte(arg), &a); err != nil {
		return fmt.Errorf("this command is internal to calico lab: %w", err)
	}
	ready := &progress{os.NewFile(etcdReadyFD, "ready")}
	done, err := start(a.Data, a.Socket, a.Listen)
	ready.end(err)
	if err != nil {
		return err
	}
	return fmt.Errorf("etcd: %w", <-done)
}

// etcdProcess is the lab's etcd: a process of its own, so that to stop it is as it is when
// its machine fails, and its data are on disk.
type etcdProcess struct {
	dir  Dir
	arg  etcdArg
	lock *os.File // it holds this too: nobody removes its data while it writes them

	busy sync.Mutex // locked while it is started or stopped

	mu      sync.Mutex
	running bool
	reason  string // why it ended, unless it was stopped
	kill    func()
}

func newEtcdProcess(d Dir, listen netip.AddrPort, lock *os.File) *etcdProcess {
	return &etcdProcess{dir: d, arg: etcdArg{d.etcdData(), d.etcdSocket(), listen}, lock: lock}
}

// start starts etcd on the data there are, and returns when it serves; one that runs is
// no error.
func (e *etcdProcess) start(ctx context.Context) error {
	e.busy.Lock()
	defer e.busy.Unlock()
	if e.trouble() == "" {
		return nil
	}
	ready, err := e.launch()
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer ready.Close()
	defer context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Unix(1, 0)) })()
	if err := answer(ready, io.Discard, nil); err != nil {
		e.stopLocked()
		if errors.Is(err, errHungUp) {
			err = errors.New(lastWords(e.dir.log()))
		}
		return fmt.Errorf("start etcd: %w", err)
	}
	return nil
}

// launch starts the process and returns the pipe on which it says that it is ready.
func (e *etcdProcess) launch() (*os.File, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ready, written, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer written.Close()
	cmd := exec.Command(self, "serve-etcd", encode(e.arg))
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr // the lab's log
	cmd.ExtraFiles = []*os.File{written, e.lock}
	if err := cmd.Start(); err != nil {
		ready.Close()
		return nil, err
	}
	ended := make(chan struct{})
	e.set(true, "", func() {
		cmd.Process.Kill()
		<-ended
	})
	go func() {
		defer close(ended)
		err := cmd.Wait()
		e.set(false, fmt.Sprintf("%v: %s", err, lastWords(e.dir.log())), nil)
	}()
	return ready, nil
}

func (e *etcdProcess) set(running bool, reason string, kill func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running, e.reason, e.kill = running, reason, kill
}

// stop kills etcd and returns when it has ended; one that does not run is no error.
func (e *etcdProcess) stop() {
	e.busy.Lock()
	defer e.busy.Unlock()
	e.stopLocked()
}

func (e *etcdProcess) stopLocked() {
	e.mu.Lock()
	kill := e.kill
	e.mu.Unlock()
	if kill != nil {
		kill()
	}
	e.set(false, "", nil)
}

// trouble says that etcd does not run, and why; "" if it does.
func (e *etcdProcess) trouble() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.running:
		return ""
	case e.reason != "":
		return fmt.Sprintf("etcd has ended (%s); `calico lab etcd start` starts it", e.reason)
	}
	return "etcd is stopped; `calico lab etcd start` starts it"
}
