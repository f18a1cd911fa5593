package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/calicogo/calico/store"
)

// failure says what was tried and why it failed, as one of the store's errors. ctx is
// the caller's: when it has ended, that is the reason.
func (s *Store) failure(ctx context.Context, what string, err error, a *attempt) error {
	if ctx.Err() != nil {
		return fmt.Errorf("etcd: %s: %w", what, ctx.Err())
	}
	late := errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded
	why := cause(err)
	switch {
	case late && a.reason == nil:
		why = s.silence(ctx)
	case late:
		why = s.enlarge(ctx, cause(a.reason))
	default:
		why = s.enlarge(ctx, why)
	}
	return fmt.Errorf("etcd: %s: %w: %s", what, class(err), why)
}

// enlarge adds to a reason that TLS on one side only, or a client's certificate that is
// refused, leave in the dark.
func (s *Store) enlarge(ctx context.Context, why string) string {
	if strings.Contains(why, "handshake failed: EOF") {
		return why + "; if it does not use TLS, write http:// or unix://"
	}
	broken := func(sign string) bool { return strings.Contains(why, sign) }
	if !slices.ContainsFunc([]string{"preface", "broken pipe", "reset by peer", "EOF"}, broken) {
		return why
	}
	if s.tls == nil && !s.opened {
		return why + "; if it uses TLS, write https:// or unixs://"
	}
	if s.tls == nil {
		return why
	}
	if err := diagnose(ctx, s.endpoints, s.tls); err != nil {
		return err.Error()
	}
	return why
}

// silence says why a request ran into Timeout: it looks at the endpoints itself, for
// the client keeps the reasons of failed connections to itself.
func (s *Store) silence(ctx context.Context) string {
	if err := diagnose(ctx, s.endpoints, s.tls); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("no answer from %s within %v", strings.Join(s.endpoints, ", "), s.Timeout)
}

// class tells which of the store's errors err is.
func class(err error) error {
	var e rpctypes.EtcdError
	if !errors.As(rpctypes.Error(err), &e) {
		return store.ErrUnavailable
	}
	switch {
	case errors.Is(e, rpctypes.ErrAuthFailed), errors.Is(e, rpctypes.ErrUserEmpty), errors.Is(e, rpctypes.ErrRootRoleNotExist):
		return store.ErrForbidden
	case errors.Is(e, rpctypes.ErrRequestTooLarge), errors.Is(e, rpctypes.ErrTooManyOps), errors.Is(e, rpctypes.ErrDuplicateKey):
		return store.ErrInvalid
	}
	switch e.Code() {
	case codes.PermissionDenied, codes.Unauthenticated:
		return store.ErrForbidden
	}
	return store.ErrUnavailable
}

// cause is the innermost reason of a gRPC error: what the connection said, without the
// layers that carried it.
func cause(err error) string {
	msg := err.Error()
	if st, ok := status.FromError(err); ok {
		msg = st.Message()
	}
	for _, layer := range []string{"Error while dialing: ", "desc = ", "transport: "} {
		if i := strings.LastIndex(msg, layer); i >= 0 {
			msg = msg[i+len(layer):]
		}
	}
	return strings.Trim(msg, `"`)
}
