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
	"time"
)

// nodeSocket is where a node's agent tells its status.
const nodeSocket = "/run/calico/node.sock"

// agent keeps `calico node` running in a node, as a kubelet would.
type agent struct {
	node *node
	path string
	env  []string
	log  *os.File
	http *http.Client

	mu     sync.Mutex
	cmd    *exec.Cmd // nil while none runs
	exits  int
	reason string // of the last exit
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
	return &agent{node: n, path: path, env: env, log: log, http: &http.Client{Transport: transport}}, nil
}

// agentEnded begins the line that is added to an agent's log when it ends.
const agentEnded = "calico lab: calico node ended:"

// run starts the agent and starts it again when it ends, sooner or later as it lives
// longer or shorter.
func (a *agent) run(ctx context.Context) {
	const shortest, longest = 100 * time.Millisecond, 5 * time.Second
	pause := shortest
	for ctx.Err() == nil {
		began := time.Now()
		err := a.once()
		a.mu.Lock()
		a.exits++
		a.reason = fmt.Sprint(err)
		a.mu.Unlock()
		fmt.Fprintf(a.log, agentEnded+" %v\n", err)
		if time.Since(began) > 10*time.Second {
			pause = shortest
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
}

func (a *agent) once() error {
	cmd := exec.Command(a.path, "node")
	cmd.Env = a.env
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = a.log, a.log
	if err := a.node.ns.start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", a.path, err)
	}
	a.setCommand(cmd)
	defer a.setCommand(nil)
	if err := cmd.Wait(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

func (a *agent) setCommand(cmd *exec.Cmd) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cmd = cmd
}

// signal sends a signal to the agent if it runs.
func (a *agent) signal(s os.Signal) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cmd == nil {
		return fmt.Errorf("the agent of %s does not run", a.node.name)
	}
	return a.cmd.Process.Signal(s)
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

// ready waits until the agent is ready, has failed several times, or ctx ends.
func (a *agent) ready(ctx context.Context) error {
	var last AgentStatus
	for {
		s, err := a.status(ctx, 0, 0)
		if err == nil {
			last = s
		}
		if err == nil && s.Ready {
			return nil
		}
		if exits, reason := a.lives(); exits >= 3 {
			return fmt.Errorf("%s: calico node ended %d times: %s: %s", a.node.name, exits, reason, lastWords(a.log.Name()))
		}
		select {
		case <-ctx.Done():
			why := last.problems()
			if why == "" {
				why = ": " + lastWords(a.log.Name())
			}
			return fmt.Errorf("%s is not ready%s", a.node.name, why)
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
