// Package wire is how the CNI plugin and the node's agent speak: one JSON request and
// one JSON answer a connection, over a Unix socket, with the descriptor of the pod's
// network namespace beside the request. It imports the standard library only, for the
// plugin's start is its cost.
package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Places that plugin and agent agree on.
const (
	Socket  = "/var/run/calico/cni/cni.sock"
	Journal = "/var/lib/calico/cni/del" // DELs that came while no agent answered
)

// Request is one call of the plugin.
type Request struct {
	Command     string          `json:"command"` // ADD, DEL, CHECK, STATUS, GC
	ContainerID string          `json:"containerID,omitempty"`
	IfName      string          `json:"ifName,omitempty"`
	Args        string          `json:"args,omitempty"`  // CNI_ARGS: K=V;K=V
	NetNS       string          `json:"netns,omitempty"` // the path, for messages only
	Config      json.RawMessage `json:"config"`
}

// Response is the agent's answer. Output goes to the runtime as it is.
type Response struct {
	Output json.RawMessage `json:"output,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// Error is an error as the CNI specification has it.
type Error struct {
	Version string `json:"cniVersion,omitempty"`
	Code    uint   `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details,omitempty"`
}

func (e *Error) Error() string { return e.Msg }

// Codes of the CNI specification, and 100 for what is Calico's own.
const (
	CodeIncompatible = 1
	CodeUnsupported  = 2
	CodeUnknownPod   = 3
	CodeEnvironment  = 4
	CodeIO           = 5
	CodeDecode       = 6
	CodeConfig       = 7
	CodeTryAgain     = 11
	CodeNotAvailable = 50 // STATUS: ADD cannot work
	CodeLimited      = 51 // STATUS: nor may pods that are attached have their whole network
	CodeFailed       = 100
)

// Errorf returns an Error with a code.
func Errorf(code uint, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// Both become parts of file names, so neither may hold a slash or begin with a dot.
var (
	containerID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`)
	ifName      = regexp.MustCompile(`^[^\s/:.][^\s/:]*$`)
)

// Validate says what is wrong with the parameters that a command needs.
func (r *Request) Validate() error {
	switch r.Command {
	case "ADD", "DEL", "CHECK":
	case "STATUS", "GC":
		return nil
	default:
		return Errorf(CodeEnvironment, "CNI_COMMAND=%s: want ADD, DEL, CHECK, STATUS, GC or VERSION", r.Command)
	}
	return CheckID(r.ContainerID, r.IfName)
}

// CheckID says what keeps the two from naming an attachment; its error is an [Error].
func CheckID(container, name string) error {
	if !containerID.MatchString(container) || len(container) > 200 {
		return Errorf(CodeEnvironment, "CNI_CONTAINERID=%q is not a container ID", container)
	}
	if !ifName.MatchString(name) || len(name) > 15 {
		return Errorf(CodeEnvironment, "CNI_IFNAME=%q is not an interface name", name)
	}
	return nil
}

// JournalName is the name of the file that stands for a DEL.
func (r *Request) JournalName() string { return FileName(r.ContainerID, r.IfName) }

// FileName names an attachment in the file system. Container IDs have no @, so that no two
// attachments share a name.
func FileName(containerID, ifName string) string { return containerID + "@" + ifName }

// Limit bounds what either side reads, in bytes.
const Limit = 1 << 20

// Seconds is a time of the network configuration: at least nothing, at most ten minutes,
// which is longer than runtimes wait.
func Seconds(s float64) time.Duration {
	return time.Duration(min(max(s, 0), 600) * float64(time.Second))
}

// Call sends a request and waits for the answer. ns may be nil.
func Call(ctx context.Context, socket string, r *Request, ns *os.File) (*Response, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if err := send(c.(*net.UnixConn), r, ns); err != nil {
		return nil, err
	}
	var resp Response
	if err := json.NewDecoder(io.LimitReader(c, Limit)).Decode(&resp); err != nil {
		return nil, fmt.Errorf("read the agent's answer: %w", err)
	}
	return &resp, nil
}

// send leaves the connection open for writing: that it is, is how the agent knows that
// somebody still waits for the answer.
func send(c *net.UnixConn, r *Request, ns *os.File) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var rights []byte
	if ns != nil {
		rights = syscall.UnixRights(int(ns.Fd()))
	}
	n, _, err := c.WriteMsgUnix(b, rights, nil)
	if err == nil && n < len(b) {
		_, err = c.Write(b[n:])
	}
	return err
}

// Receive reads a request and the descriptor that came with it (nil: none).
func Receive(c *net.UnixConn) (*Request, *os.File, error) {
	buf, oob := make([]byte, 64<<10), make([]byte, syscall.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, nil, err
	}
	ns, err := descriptor(oob[:oobn])
	if err != nil {
		return nil, nil, err
	}
	rest := &io.LimitedReader{R: c, N: Limit}
	var r Request
	if err := json.NewDecoder(io.MultiReader(bytes.NewReader(buf[:n]), rest)).Decode(&r); err != nil {
		if ns != nil {
			ns.Close()
		}
		if rest.N <= 0 {
			return nil, nil, fmt.Errorf("the request is larger than %d bytes", Limit)
		}
		return nil, nil, err
	}
	return &r, ns, nil
}

// descriptor takes the one descriptor that may be in a control message, and closes
// whatever else the kernel made room for.
func descriptor(oob []byte) (*os.File, error) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range msgs {
		if some, err := syscall.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, some...)
		}
	}
	switch len(fds) {
	case 0:
		return nil, nil
	case 1:
		return os.NewFile(uintptr(fds[0]), "netns"), nil // closed on exec, by net
	}
	for _, fd := range fds {
		syscall.Close(fd)
	}
	return nil, errors.New("more than one descriptor came with the request")
}

// Reply sends the answer.
func Reply(c net.Conn, r *Response) error { return json.NewEncoder(c).Encode(r) }

// ParseArgs splits CNI_ARGS.
func ParseArgs(s string) map[string]string {
	m := map[string]string{}
	for kv := range strings.SplitSeq(s, ";") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			m[k] = v
		}
	}
	return m
}
