package etcd

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// attempt follows one request through the client, which when time runs out says no more
// than that it did. It travels in the request's context; see [remember].
type attempt struct {
	fast   bool  // fail at once where there is no connection; else wait for one
	reason error // the last that said more than that time ran out
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
