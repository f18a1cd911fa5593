// Package etcdtest runs etcd inside a test, and can stop and restart it, compact it and
// cut it off. Its data does not outlive the test.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Timeout bounds every wait of this package; meeting it is a failure.
const Timeout = 60 * time.Second

// Start runs an empty etcd until the test ends and returns its endpoint, a URL of the
// form unix:///PATH.
func Start(t testing.TB) (endpoint string) {
	t.Helper()
	return StartServer(t).Endpoint
}

// Server is an etcd of one member.
type Server struct {
	Endpoint string // unix:///PATH

	t    testing.TB
	dir  string
	tls  *TLS
	age  int         // how often it was replaced
	etcd *embed.Etcd // nil while it is stopped
}

// StartServer runs an empty etcd until the test ends.
func StartServer(t testing.TB) *Server {
	t.Helper()
	return start(t, "unix", nil)
}

// StartTLS is StartServer for an etcd that uses TLS and asks its clients for
// certificates. Its Endpoint has the form unixs:///PATH.
func StartTLS(t testing.TB, files TLS) *Server {
	t.Helper()
	return start(t, "unixs", &files)
}

func start(t testing.TB, scheme string, files *TLS) *Server {
	t.Helper()
	// Not t.TempDir: the path of a Unix socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, dir: dir, tls: files, Endpoint: scheme + "://" + filepath.Join(dir, "client")}
	t.Cleanup(func() {
		s.Stop()
		os.RemoveAll(dir)
	})
	s.Restart()
	return s
}

// Restart starts etcd with the data it had, after stopping it if it runs.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	e, err := embed.StartEtcd(s.config())
	if err != nil {
		s.t.Fatalf("etcdtest: %v", err)
	}
	s.etcd = e
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		s.t.Fatalf("etcdtest: %v", err)
	case <-time.After(Timeout):
		s.t.Fatal("etcdtest: etcd did not become ready")
	}
}

func (s *Server) config() *embed.Config {
	c := embed.NewConfig()
	c.Name = "test"
	c.InitialClusterToken = fmt.Sprint("test-", s.age)
	c.Dir = filepath.Join(s.dir, "data")
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	c.UnsafeNoFsync = true // the data need not outlive the machine
	c.BcryptCost = 4       // the least there is: passwords of tests are no secrets
	c.TickMs, c.ElectionMs = 20, 200
	client := url.URL{Scheme: "unix", Path: filepath.Join(s.dir, "client")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(s.dir, "peer")}
	if s.tls != nil {
		client.Scheme = "unixs"
		c.ClientTLSInfo = transport.TLSInfo{
			CertFile: s.tls.CertFile, KeyFile: s.tls.KeyFile, TrustedCAFile: s.tls.CAFile, ClientCertAuth: true,
		}
	}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	return c
}

// Stop stops etcd, breaking its connections; its data stays.
func (s *Server) Stop() {
	if s.etcd != nil {
		s.etcd.Close()
		s.etcd = nil
	}
}

// Wipe stops etcd, drops its data and starts it empty, with revisions from the
// beginning: as the same cluster, as after a restored backup, or as another.
func (s *Server) Wipe(another bool) {
	s.t.Helper()
	s.Stop()
	if another {
		s.age++
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "data")); err != nil {
		s.t.Fatal(err)
	}
	s.Restart()
}

// Client returns a client of the server that is closed when the test ends.
func (s *Server) Client() *clientv3.Client {
	s.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatalf("etcdtest: %v", err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// Compact forgets all history up to the present revision, which it returns.
func (s *Server) Compact() int64 {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	c := s.Client()
	r, err := c.Get(ctx, "/", clientv3.WithCountOnly())
	if err == nil {
		_, err = c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) { // that is: already
		s.t.Fatalf("etcdtest: compact: %v", err)
	}
	return r.Header.Revision
}
