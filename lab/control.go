package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// call is one request of a client. Its context ends when the client hangs up.
type call struct {
	ctx   context.Context
	args  json.RawMessage
	files []*os.File
	enc   *json.Encoder
}

// Write sends output to the client.
func (c *call) Write(b []byte) (int, error) {
	return len(b), c.enc.Encode(message{Out: string(b)})
}

// handle makes a handler of a function that takes arguments of one type.
func handle[A any](f func(*Supervisor, *call, A) (any, error)) func(*Supervisor, *call) (any, error) {
	return func(s *Supervisor, c *call) (any, error) {
		var args A
		if err := json.Unmarshal(c.args, &args); err != nil {
			return nil, fmt.Errorf("arguments of the request: %w", err)
		}
		return f(s, c, args)
	}
}

var handlers = map[string]func(*Supervisor, *call) (any, error){
	"run":     handle((*Supervisor).run),
	"rm":      handle((*Supervisor).remove),
	"exec":    handle((*Supervisor).exec),
	"ping":    handle((*Supervisor).ping),
	"connect": handle((*Supervisor).connect),
	"send":    handle((*Supervisor).send),
	"flow":    handle((*Supervisor).flow),
	"routes":  handle((*Supervisor).routes),
	"status":  handle((*Supervisor).status),
	"wait":    handle((*Supervisor).wait),
	"log":     handle((*Supervisor).log),
	"capture": handle((*Supervisor).capture),
	"node":    handle((*Supervisor).nodeFault),
	"etcd":    handle((*Supervisor).etcdFault),
	"probe":   handle((*Supervisor).probe),
	"down":    handle((*Supervisor).down),
}

// serve answers clients until the supervisor stops.
func (s *Supervisor) serve(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			s.stop(fmt.Errorf("control socket: %w", err))
			return
		}
		go s.answer(conn)
	}
}

func (s *Supervisor) answer(conn *net.UnixConn) {
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	r, files, err := receive(conn)
	if err != nil {
		return // the client went away, or is none
	}
	defer closeAll(files)
	conn.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	go func() {
		conn.Read(make([]byte, 1)) // returns when the client hangs up
		cancel()
	}()
	c := &call{ctx: ctx, args: r.Args, files: files, enc: json.NewEncoder(conn)}
	result, err := s.dispatch(r.Op, c)
	c.enc.Encode(message{End: endOf(result, err)})
	if r.Op == "down" {
		s.stop(errDown)
	}
}

func (s *Supervisor) dispatch(op string, c *call) (any, error) {
	h, ok := handlers[op]
	if !ok {
		return nil, fmt.Errorf("unknown request %q: client and lab are of different versions", op)
	}
	result, err := h(s, c)
	if err != nil && errors.Is(context.Cause(s.ctx), errDown) {
		err = errDown
	}
	return result, err
}

func (s *Supervisor) down(*call, struct{}) (any, error) { return nil, nil }
