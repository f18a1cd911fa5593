package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// nodeSocket is where a node's agent tells its status.
const nodeSocket = "/run/calico/node.sock"

// agent keeps `calico node` running in a node, as a kubelet would, until it is told to
// stop it.
type agent struct {
	node *node
	path string
	env  []string
	log  *os.File
	http *http.Client

	mu      sync.Mutex
	process *exec.Cmd     // nil while none runs
	stopped bool          // it shall not run
	changed chan struct{} // closed and replaced with any of these
	exits   int
	reason  string // of the last exit
}

// newAgent returns the agent of a node, which [agent.run] runs.
func newAgent(n *node, logFile string, env []string) (*agent, error) {
	path, err := siblingBinary("calico")
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	socket := n.file(nodeSocket)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	return &agent{
		node: n, path: path, env: env, log: log, http: &http.Client{Transport: transport}, changed: make(chan struct{}),
	}, nil
}

// agentEnded begins the line that is added to an agent's log when it ends.
const agentEnded = "calico lab: calico node ended:"

// An agent that ends is started again after a second, and later when it keeps ending.
const (
	shortestPause = time.Second
	longestPause  = 5 * time.Second
	longLife      = 10 * time.Second // after which it does not keep ending
)

// run starts the agent, and starts it again when it ends, while it is not stopped.
func (a *agent) run(ctx context.Context) {
	pause := shortestPause
	for a.await(ctx, func() bool { return !a.stopped }) {
		began := time.Now()
		killed, err := a.once()
		fmt.Fprintf(a.log, agentEnded+" %v\n", err)
		if killed || time.Since(began) > longLife {
			pause = shortestPause
		}
		a.rest(ctx, pause)
		pause = min(2*pause, longestPause)
	}
}

// once runs one process of the agent to its end, and tells whether that was asked for:
// whether it was killed or stopped.
func (a *agent) once() (asked bool, err error) {
	cmd := exec.Command(a.path, "node")
	cmd.Env = a.env
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = a.log, a.log
	a.update(func() { // who stops it meanwhile waits until there is a process to stop
		if a.stopped {
			err = errors.New("stopped before it started")
		} else if err = a.node.ns.start(cmd); err != nil {
			err = fmt.Errorf("start %s: %w", a.path, err)
		} else {
			a.process = cmd
		}
	})
	if err == nil {
		if err = cmd.Wait(); err == nil {
			err = errors.New("exit status 0")
		}
	}
	a.update(func() {
		a.process = nil
		a.exits++
		a.reason = err.Error()
		asked = a.stopped
	})
	return asked || killed(cmd.ProcessState), err
}

// killed tells whether a process ended by SIGKILL.
func killed(s *os.ProcessState) bool {
	if s == nil {
		return false
	}
	ws, ok := s.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

// rest waits for the time to pass, or for the agent to be stopped.
func (a *agent) rest(ctx context.Context, pause time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	a.await(ctx, func() bool { return a.stopped })
}

func (a *agent) update(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	close(a.changed)
	a.changed = make(chan struct{})
}

// await waits until ok, which is called with a's lock held; it returns false if ctx ends
// before.
func (a *agent) await(ctx context.Context, ok func() bool) bool {
	for {
		a.mu.Lock()
		done, changed := ok(), a.changed
		a.mu.Unlock()
		if ctx.Err() != nil || done {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// kill kills the agent's process, and returns when it has ended. It is started again.
func (a *agent) kill(ctx context.Context) error {
	a.mu.Lock()
	process, stopped := a.process, a.stopped
	a.mu.Unlock()
	switch {
	case stopped:
		return fmt.Errorf("the agent of %s does not run: %s", a.node.name, a.stoppedText())
	case process == nil:
		return fmt.Errorf("the agent of %s does not run: it ended and is about to be started again", a.node.name)
	}
	process.Process.Kill()
	return a.ended(ctx, process)
}

// stopTime is how long an agent may take to end before it is killed.
const stopTime = 10 * time.Second

// stop ends the agent, which is not started again; one that is stopped already is no error.
func (a *agent) stop(ctx context.Context) error {
	var process *exec.Cmd
	a.update(func() { a.stopped, process = true, a.process })
	if process == nil {
		return nil
	}
	process.Process.Signal(syscall.SIGTERM)
	defer time.AfterFunc(stopTime, func() { process.Process.Kill() }).Stop()
	return a.ended(ctx, process)
}

func (a *agent) ended(ctx context.Context, process *exec.Cmd) error {
	if !a.await(ctx, func() bool { return a.process != process }) {
		return fmt.Errorf("the agent of %s has not ended: %w", a.node.name, ctx.Err())
	}
	return nil
}

// start lets the agent run again.
func (a *agent) start() { a.update(func() { a.stopped = false }) }

func (a *agent) isStopped() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopped
}

func (a *agent) stoppedText() string {
	return fmt.Sprintf("it is stopped, and `calico lab node start %s` starts it", a.node.name)
}

// lives counts the times the agent ended, and says how it did the last time.
func (a *agent) lives() (exits int, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.exits, a.reason
}

// AgentStatus is what an agent says of itself.
type AgentStatus struct {
	Node     string
	Ready    bool
	InSync   bool
	Revision int64 // the newest of the datastore whose contents are in the kernel
	// Conditions are what it wants to be known; those that are not OK, problems.
	Conditions []AgentCondition
	// Stats count what the agent wrote to the kernel, by driver; may be absent.
	Stats map[string]int64
}

// AgentCondition is one thing that an agent says of itself.
type AgentCondition struct {
	Type    string
	OK      bool
	Message string
}

// status asks the agent; it waits until the kernel has the revision, up to wait.
func (a *agent) status(ctx context.Context, revision int64, wait time.Duration) (AgentStatus, error) {
	var s AgentStatus
	ctx, cancel := context.WithTimeout(ctx, wait+3*time.Second)
	defer cancel()
	url := "http://node/status"
	if revision > 0 {
		url += fmt.Sprintf("?revision=%d&wait=%s", revision, wait.Round(time.Millisecond))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return s, err
	}
	answer, err := a.http.Do(req)
	if err != nil {
		return s, fmt.Errorf("ask the agent of %s: %w", a.node.name, errors.Unwrap(err))
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return s, fmt.Errorf("ask the agent of %s: %w", a.node.name, err)
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("status of %s: %w: %.80q", a.node.name, err, body)
	}
	return s, nil
}

// ready waits until the agent is ready, has ended several times, or ctx ends.
func (a *agent) ready(ctx context.Context) error {
	return a.says(ctx, "ready", func(s AgentStatus) bool { return s.Ready })
}

// says waits until the agent's status is good enough, as what says.
func (a *agent) says(ctx context.Context, what string, enough func(AgentStatus) bool) error {
	var last AgentStatus
	before, _ := a.lives()
	for {
		s, err := a.status(ctx, 0, 0)
		if err == nil {
			last = s
		}
		if err == nil && enough(s) {
			return nil
		}
		if exits, reason := a.lives(); exits >= before+3 {
			return fmt.Errorf("%s: calico node ended %d times: %s: %s", a.node.name, exits-before, reason, lastWords(a.log.Name()))
		}
		select {
		case <-ctx.Done():
			why := last.problems()
			if why == "" {
				why = ": " + lastWords(a.log.Name())
			}
			return fmt.Errorf("%s is not %s%s", a.node.name, what, why)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s AgentStatus) problems() string {
	text := ""
	for _, c := range s.Conditions {
		if !c.OK {
			text += "; " + c.Type + ": " + c.Message
		}
	}
	return text
}
