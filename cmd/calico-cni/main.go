// Command calico-cni is the CNI plugin, installed as `calico` and `calico-ipam`. It opens
// the pod's network namespace and asks the node's agent over a Unix socket; it holds no
// credentials and decides nothing. See the CNI specification, 0.3.1 to 1.1.0.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/calicogo/calico/cni/wire"
)

const versions = `{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}`

// config is the part of the network configuration that the plugin itself reads.
type config struct {
	Version string `json:"cniVersion"`
	// Timeout is how long, in seconds, the agent's socket is tried; default 10.
	Timeout *float64 `json:"agent_timeout_seconds"`
	Socket  string   `json:"agent_socket"`
	Journal string   `json:"agent_journal_dir"`
	Policy  float64  `json:"policy_setup_timeout_seconds"` // how long the agent may wait for the kernel
}

// answerTimeout is how long a call may take, besides what the agent was told to wait.
const answerTimeout = 90 * time.Second

func main() {
	out, version, err := run()
	if err == nil {
		os.Stdout.Write(out)
		return
	}
	var e *wire.Error
	if !errors.As(err, &e) {
		e = wire.Errorf(wire.CodeFailed, "%v", err)
	}
	e.Version = version
	json.NewEncoder(os.Stdout).Encode(e)
	os.Exit(1)
}

func run() (out []byte, version string, err error) {
	if os.Getenv("CNI_COMMAND") == "" && len(os.Args) > 1 && os.Args[1] == "--version" {
		return []byte("calico CNI plugin; CNI 0.3.1 to 1.1.0\n"), "", nil
	}
	if os.Getenv("CNI_COMMAND") == "VERSION" {
		return []byte(versions + "\n"), "", nil
	}
	req := &wire.Request{
		Command:     os.Getenv("CNI_COMMAND"),
		ContainerID: os.Getenv("CNI_CONTAINERID"),
		IfName:      os.Getenv("CNI_IFNAME"),
		Args:        os.Getenv("CNI_ARGS"),
		NetNS:       os.Getenv("CNI_NETNS"),
	}
	conf := config{Version: "1.1.0", Socket: wire.Socket, Journal: wire.Journal}
	if req.Command == "" {
		return nil, conf.Version, wire.Errorf(wire.CodeEnvironment, "CNI_COMMAND is not set: this program is run by a container runtime, see the CNI specification")
	}
	if req.Config, err = io.ReadAll(io.LimitReader(os.Stdin, wire.Limit/2)); err != nil {
		return nil, conf.Version, wire.Errorf(wire.CodeIO, "read the network configuration from standard input: %v", err)
	}
	if len(req.Config) == wire.Limit/2 {
		return nil, conf.Version, wire.Errorf(wire.CodeConfig, "the network configuration on standard input is larger than %d bytes", wire.Limit/2)
	}
	if err := json.Unmarshal(req.Config, &conf); err != nil {
		return nil, conf.Version, wire.Errorf(wire.CodeDecode, "the network configuration on standard input: %v", err)
	}
	if err := req.Validate(); err != nil {
		return nil, conf.Version, err
	}
	out, err = call(req, conf)
	return out, conf.Version, err
}

// call asks the agent. Where none answers, DEL is journalled and succeeds. GC is not: its
// list of what the runtime has is true at this moment only, and runtimes call it again.
func call(req *wire.Request, conf config) ([]byte, error) {
	ns, err := openNS(req)
	if err != nil {
		return nil, err
	}
	resp, err := ask(req, ns, conf)
	switch {
	case err == nil && resp.Error != nil:
		return nil, resp.Error
	case err == nil:
		return resp.Output, nil
	case req.Command == "DEL":
		if jerr := journal(conf.Journal, req); jerr != nil {
			return nil, wire.Errorf(wire.CodeTryAgain, "calico node does not answer (%v) and the removal could not be written down: %v", err, jerr)
		}
		return nil, nil
	case req.Command == "STATUS":
		return nil, wire.Errorf(wire.CodeNotAvailable, "calico node does not answer: %v", err)
	}
	return nil, wire.Errorf(wire.CodeTryAgain, "calico node does not answer: %v; is it running on this machine?", err)
}

// openNS opens the pod's namespace here, where the runtime's path means something. DEL
// goes on without one: the namespace may be gone.
func openNS(req *wire.Request) (*os.File, error) {
	if req.Command != "ADD" && req.Command != "CHECK" && req.Command != "DEL" {
		return nil, nil
	}
	if req.NetNS == "" && req.Command == "DEL" {
		return nil, nil
	}
	f, err := os.Open(req.NetNS)
	if err != nil && req.Command != "DEL" {
		return nil, wire.Errorf(wire.CodeUnknownPod, "CNI_NETNS: %v", err)
	}
	if err != nil {
		return nil, nil
	}
	return f, nil
}

// statusPatience is for how long a STATUS looks for the agent: while one is replaced, ADD
// works, for it waits for longer, and a runtime that is told otherwise has the node shunned.
const statusPatience = 2 * time.Second

// patience is for how long the agent's socket is tried.
func (c config) patience(command string) time.Duration {
	p := 10 * time.Second
	if c.Timeout != nil {
		p = wire.Seconds(*c.Timeout)
	}
	if command == "STATUS" {
		return min(p, statusPatience)
	}
	return p
}

// ask tries the socket for a while: an agent that is being replaced is back in seconds.
// That while begins anew, once, when an agent dies in the middle of a call: the next one
// goes on with it, for every call can be repeated.
func ask(req *wire.Request, ns *os.File, conf config) (*wire.Response, error) {
	deadline, broken := time.Now().Add(conf.patience(req.Command)), false
	for {
		ctx, cancel := context.WithTimeout(context.Background(), answerTimeout+wire.Seconds(conf.Policy))
		resp, err := wire.Call(ctx, conf.Socket, req, ns)
		tired := ctx.Err() != nil
		cancel()
		again := err != nil || resp.Error != nil && resp.Error.Code == wire.CodeTryAgain
		if err != nil && !broken && !tired && !noAgent(err) {
			deadline, broken = time.Now().Add(conf.patience(req.Command)), true
		}
		if !again || !time.Now().Before(deadline) {
			return resp, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// noAgent tells whether nobody took the call at all.
func noAgent(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && e.Op == "dial"
}

// journal writes a DEL down for the next agent, so that the runtime may forget the pod.
func journal(dir string, req *wire.Request) error {
	b, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(dir, req.JournalName())
	tmp := fmt.Sprintf("%s.tmp%d", filepath.Join(dir, "."+req.JournalName()), os.Getpid())
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
