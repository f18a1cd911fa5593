package etcd

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

// attempt follows one request through the client, which when time runs out says no more
// than that it did. It travels in the request's context; see [remember].
type attempt struct {
	fast   bool  // fail at once where there is no connection; else wait for one
	reason error // the last that said more than that time ran out
}

// refusalTime is how long a request waits for a connection when the last try to make one
// has failed: long enough for another.
const refusalTime = 500 * time.Millisecond

// patient is an attempt that waits for a connection, unless there is none to be had: a
// caller that has other things to do, a DEL for one, can use that it fails soon. Another
// try to connect is made at once: the server may just have come back.
func (s *Store) patient(ctx context.Context) *attempt {
	conn := s.client.ActiveConnection()
	state := conn.GetState()
	if state == connectivity.Ready {
		return &attempt{}
	}
	ctx, cancel := context.WithTimeout(ctx, refusalTime)
	defer cancel()
	conn.Connect()
	conn.ResetConnectBackoff()
	for state != connectivity.Ready && conn.WaitForStateChange(ctx, state) {
		state = conn.GetState()
	}
	return &attempt{fast: state == connectivity.TransientFailure}
}

type attemptKey struct{}

func (a *attempt) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, attemptKey{}, a)
}

// remember is a [grpc.UnaryClientInterceptor] that fills in the attempt of each try.
func remember(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	if a.fast {
		opts = append(opts, grpc.WaitForReady(false))
	}
	err := invoke(ctx, method, req, reply, cc, opts...)
	if err != nil && (status.Code(err) != codes.DeadlineExceeded || strings.Contains(err.Error(), "connection error")) {
		a.reason = err
	}
	return err
}
