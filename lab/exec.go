package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// ExecRequest runs a command in a pod or node.
type ExecRequest struct {
	In      string // [NAMESPACE/]POD, or a node
	Command []string
	Default string // namespace of a pod that is given without one
}

// exec runs the command with the descriptors that came with the request.
func (s *Supervisor) exec(c *call, r ExecRequest) (any, error) {
	at, err := s.place(r.In, r.Default)
	if err != nil {
		return nil, err
	}
	if len(r.Command) == 0 || len(c.files) != 3 {
		return nil, &ExitError{Code: 2, Msg: "exec needs a command"}
	}
	cmd := at.command(r.Command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.files[0], c.files[1], c.files[2]
	if err := at.ns.start(cmd); err != nil {
		return nil, startError(r.Command[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-c.ctx.Done():
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		err = <-ended
	}
	return nil, exitError(err)
}

// command is a command for the place, in a process group of its own.
func (p place) command(args []string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "HOSTNAME="+p.name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func startError(name string, err error) error {
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return &ExitError{Code: 127, Msg: fmt.Sprintf("command %q: not found", name)}
	case errors.Is(err, os.ErrPermission):
		return &ExitError{Code: 126, Msg: fmt.Sprintf("command %q: not executable", name)}
	}
	return fmt.Errorf("run %s: %w", name, err)
}

// exitError gives the exit code of a command as a shell does.
func exitError(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &ExitError{Code: 128 + int(ws.Signal())}
	}
	return &ExitError{Code: exit.ExitCode()}
}

// place is where commands run and pings start: a pod or a node.
type place struct {
	name string
	ns   *namespaces
	node *node // that it is, or is on
}

// place finds a pod, or else a node.
func (s *Supervisor) place(name, defaultNamespace string) (place, error) {
	pod, podErr := s.podNamed(name, defaultNamespace)
	if podErr == nil {
		return place{pod.name.Name, pod.ns, pod.node}, nil
	}
	if !strings.Contains(name, "/") {
		if n, err := s.nodeNamed(name); err == nil {
			return place{n.name, n.ns, n}, nil
		}
	}
	return place{}, podErr
}
