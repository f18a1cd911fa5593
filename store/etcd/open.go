package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/grpclog"
)

// gRPC and the etcd client would each write to stderr about what we report as errors.
func init() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) }

// Keepalives find a connection whose other end is gone. etcd takes pings no more often
// than every 5 s.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
)

// reconnect has gRPC try again soon, and retries have the client give up soon enough to
// tell the reason: left to themselves they wait for minutes, or for the caller's time to
// be over.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

const (
	retries   = 10
	retryWait = 50 * time.Millisecond
)

// Open connects to etcd and, unless c is Lazy, has it answer once, within c.DialTimeout. Its error is
// ErrUnavailable with the true cause (connection refused, x509 …), ErrForbidden, or
// about c. Close the Store when done.
func Open(ctx context.Context, c Config) (*Store, error) {
	c = c.Defaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	tlsConfig, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	s := New(nil)
	s.owned, s.opened, s.tls, s.endpoints, s.Timeout = true, false, tlsConfig, c.Endpoints, c.DialTimeout
	if err := s.hello(ctx, c); err != nil {
		return nil, err
	}
	s.opened, s.Timeout = true, c.RequestTimeout
	return s, nil
}

// hello makes the client, logs in and reads one key. The client may not end with ctx,
// but until hello returns it does.
func (s *Store) hello(ctx context.Context, c Config) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, end)()
	what := "connecting to " + strings.Join(c.Endpoints, ", ")
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: s.tls, Username: c.Username, Password: c.Password, Context: life,
		DialTimeout: c.DialTimeout, DialKeepAliveTime: keepaliveTime, DialKeepAliveTimeout: keepaliveTimeout,
		DialOptions:     []grpc.DialOption{grpc.WithConnectParams(reconnect), grpc.WithChainUnaryInterceptor(remember)},
		MaxUnaryRetries: retries, BackoffWaitBetween: retryWait,
		Logger: zap.NewNop(),
	})
	if err != nil {
		end()
		return s.failure(ctx, what, err, &attempt{})
	}
	s.client = client
	if c.Lazy {
		return nil
	}
	if _, err := s.fast(ctx, what, probe); err != nil {
		client.Close()
		end()
		return err
	}
	return nil
}

// diagnose connects to each endpoint as a client would and returns the first reason for
// which that fails with all of them; nil if one can be reached.
func diagnose(ctx context.Context, endpoints []string, t *tls.Config) error {
	var errs []error
	for _, e := range endpoints {
		err := knock(ctx, e, t)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.New(strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; "))
}

// knock opens one connection and, where TLS is used, completes its handshake.
func knock(ctx context.Context, url string, t *tls.Config) error {
	e, err := parseEndpoint(url)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, e.network, e.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if !e.tls || t == nil {
		return nil
	}
	t = t.Clone()
	if t.ServerName == "" {
		t.ServerName = e.host
	}
	secure := tls.Client(conn, t)
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%s: %w", e.address, err)
	}
	return refusal(secure, e.address)
}

// refusal waits a moment for the server's verdict on our certificate, which in TLS 1.3
// comes after the handshake. A server that is content may well say nothing.
func refusal(conn net.Conn, address string) error {
	_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		return fmt.Errorf("%s: %w", address, err)
	}
	return nil
}
