package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Client speaks to the supervisor of a lab.
type Client struct{ dir Dir }

// NewClient returns a client of the lab of that name, which must be up.
func NewClient(name string) (*Client, error) {
	dir, err := DirOf(name)
	if err != nil {
		return nil, &ExitError{Code: 2, Msg: err.Error()}
	}
	if err := requireRoot(); err != nil {
		return nil, err
	}
	lock, err := dir.lockExisting()
	if err == nil || errors.Is(err, os.ErrNotExist) {
		if lock != nil {
			lock.Close()
		}
		return nil, fmt.Errorf("lab %q is not up: start it with `calico lab up --name %s`", name, name)
	}
	if !errors.Is(err, errRunning) {
		return nil, err
	}
	return &Client{dir}, nil
}

// Dir is the lab's directory.
func (c *Client) Dir() Dir { return c.dir }

func (d Dir) dial() (*net.UnixConn, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: d.controlSocket(), Net: "unix"})
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("lab %q is not ready yet", d.Name())
	}
	return conn, err
}

// call makes a request. Output of the request goes to out, its result to result.
func (c *Client) call(ctx context.Context, op string, args any, out io.Writer, result any, files ...*os.File) error {
	conn, err := c.dir.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	err = c.exchange(conn, op, args, out, result, files...)
	if errors.Is(err, errHungUp) && ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// lastWord is how long the answer to a request may take that was ended: it may be long, and the
// machine busy. Who asks a second time by Ctrl-C does not wait.
const lastWord = time.Minute

// lastCall is a request that answers also when ctx ends, with what there is until then.
func (c *Client) lastCall(ctx context.Context, op string, args any, out io.Writer, result any) error {
	conn, err := c.dir.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() {
		conn.CloseWrite()
		conn.SetDeadline(time.Now().Add(lastWord))
	})()
	return c.exchange(conn, op, args, out, result)
}

func (c *Client) exchange(conn *net.UnixConn, op string, args any, out io.Writer, result any, files ...*os.File) error {
	if err := send(conn, op, args, files); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errHungUp
		}
		return fmt.Errorf("ask lab %q: %w", c.dir.Name(), err)
	}
	return answer(conn, out, result)
}

// Run makes a pod.
func (c *Client) Run(ctx context.Context, r RunRequest) (PodStatus, error) {
	var p PodStatus
	return p, c.call(ctx, "run", r, io.Discard, &p)
}

// Remove removes a pod.
func (c *Client) Remove(ctx context.Context, p PodName) error {
	return c.call(ctx, "rm", p, io.Discard, nil)
}

// Ping sends ICMP echo requests from a pod or node to another, or to an address.
func (c *Client) Ping(ctx context.Context, r PingRequest, out io.Writer) (PingResult, error) {
	var p PingResult
	return p, c.call(ctx, "ping", r, out, &p)
}

// Connect asks the listener at an address and port for its name.
func (c *Client) Connect(ctx context.Context, r ConnectRequest, out io.Writer) error {
	return c.call(ctx, "connect", r, out, nil)
}

// Send sends single packets and prints what became of each.
func (c *Client) Send(ctx context.Context, r SendRequest, out io.Writer) error {
	return c.call(ctx, "send", r, out, nil)
}

// Probe sends probes until their time is over or ctx ends, prints a line for each flow and
// returns what became of each.
func (c *Client) Probe(ctx context.Context, r ProbeRequest, out io.Writer) ([]ProbeResult, error) {
	var results []ProbeResult
	return results, c.lastCall(ctx, "probe", r, out, &results)
}

// Flow holds TCP flows until they end, their time is over or ctx ends, and prints a line when
// they are open and one for each as it ends.
func (c *Client) Flow(ctx context.Context, r FlowRequest, out io.Writer) error {
	return c.lastCall(ctx, "flow", r, out, nil)
}

// Exec runs a command in a pod or node with the given standard input, output and error.
// A command that fails gives an [ExitError].
func (c *Client) Exec(ctx context.Context, r ExecRequest, stdin, stdout, stderr *os.File) error {
	return c.call(ctx, "exec", r, stdout, nil, stdin, stdout, stderr)
}

// Routes returns a node's routes as ip-route(8) writes them.
func (c *Client) Routes(ctx context.Context, node string, out io.Writer) error {
	return c.call(ctx, "routes", node, out, nil)
}

// Status returns the state of nodes and pods.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, "status", nil, io.Discard, &s)
}

// Capture prints the packets that pass a node's link to the underlay.
func (c *Client) Capture(ctx context.Context, r CaptureRequest, out io.Writer) error {
	return c.call(ctx, "capture", r, out, nil)
}

// Log prints what the action Log tells of packets on a node.
func (c *Client) Log(ctx context.Context, r LogRequest, out io.Writer) error {
	return c.call(ctx, "log", r, out, nil)
}

// Node does something to a node's agent, and says what it did.
func (c *Client) Node(ctx context.Context, r NodeRequest, out io.Writer) error {
	return c.call(ctx, "node", r, out, nil)
}

// Etcd does something to the lab's etcd, and says what it did.
func (c *Client) Etcd(ctx context.Context, do EtcdFault, out io.Writer) error {
	return c.call(ctx, "etcd", do, out, nil)
}
