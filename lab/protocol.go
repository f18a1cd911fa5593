package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// The control protocol. A client connects, sends one byte, to which the descriptors that
// the request needs are attached (SCM_RIGHTS), then the request as JSON. The answer is
// a stream of messages as JSON, of which the last has End. A client that hangs up cancels
// its request. Progress of `up` comes over a pipe in the same form.

// request is what a client wants.
type request struct {
	Op   string
	Args json.RawMessage `json:",omitempty"`
}

// message is a piece of the answer.
type message struct {
	Out string `json:",omitempty"` // text for standard output
	End *end   `json:",omitempty"`
}

// end is how a request ended.
type end struct {
	Error  string          `json:",omitempty"`
	Code   int             `json:",omitempty"` // exit code for the command line
	Result json.RawMessage `json:",omitempty"`
}

// ExitError is an error with an exit code for the command line: 1 failed, 2 wrong usage,
// or that of a command that ran in a pod. An empty Msg is not printed.
type ExitError struct {
	Code int
	Msg  string
}

func (e *ExitError) Error() string { return e.Msg }

// ExitCode is the exit code that the command line ends with for err.
func ExitCode(err error) int {
	var e *ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	}
	return 1
}

func endOf(result any, err error) *end {
	e := &end{}
	if err != nil {
		e.Error, e.Code = err.Error(), ExitCode(err)
	}
	if result != nil {
		e.Result = json.RawMessage(encode(result))
	}
	return e
}

func (e *end) err() error {
	if e.Code == 0 && e.Error == "" {
		return nil
	}
	return &ExitError{Code: max(e.Code, 1), Msg: e.Error}
}

// send writes a request with its descriptors.
func send(conn *net.UnixConn, op string, args any, files []*os.File) error {
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix([]byte{'c'}, rights, nil); err != nil {
		return err
	}
	return json.NewEncoder(conn).Encode(request{Op: op, Args: json.RawMessage(encode(args))})
}

// receive reads a request with its descriptors.
func receive(conn *net.UnixConn) (request, []*os.File, error) {
	first, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*8))
	_, n, _, _, err := conn.ReadMsgUnix(first, oob)
	if err != nil {
		return request{}, nil, err
	}
	files, err := parseRights(oob[:n])
	if err != nil {
		return request{}, nil, err
	}
	var r request
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		closeAll(files)
		return r, nil, fmt.Errorf("read request: %w", err)
	}
	return r, files, nil
}

func parseRights(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// answer reads messages until the last, and copies output to out.
func answer(r io.Reader, out io.Writer, result any) error {
	dec := json.NewDecoder(r)
	for {
		var m message
		if err := dec.Decode(&m); err != nil {
			return errHungUp
		}
		io.WriteString(out, m.Out)
		if m.End == nil {
			continue
		}
		if result != nil && m.End.Result != nil {
			if err := json.Unmarshal(m.End.Result, result); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
		}
		return m.End.err()
	}
}

var errHungUp = errors.New("the lab ended before it answered")

// progress tells `up` how far the lab has come.
type progress struct{ w *os.File }

// printf reports a step. Its error means that `up` is gone.
func (p *progress) printf(format string, args ...any) error {
	return json.NewEncoder(p.w).Encode(message{Out: fmt.Sprintf(format, args...) + "\n"})
}

// end reports readiness, or why there will be none.
func (p *progress) end(err error) error {
	e := json.NewEncoder(p.w).Encode(message{End: endOf(nil, err)})
	p.w.Close()
	return e
}
