package etcd_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
	"github.com/calicogo/calico/store/etcd/etcdtest"
	"github.com/calicogo/calico/store/storetest"
)

// silentPort listens on TCP and never answers.
func silentPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().String()
}

func TestOpenSaysWhy(t *testing.T) {
	files, others := etcdtest.NewTLS(t), etcdtest.NewTLS(t)
	secure := etcdtest.StartTLS(t, files).Endpoint
	plain := etcdtest.Start(t)
	closed, silent := closedPort(t), silentPort(t)
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config etcd.Config
		kind   error // nil: about the configuration
		says   []string
	}{
		"refused":       {etcd.Config{Endpoints: []string{"http://" + closed}}, store.ErrUnavailable, []string{closed, "connection refused"}},
		"both refused":  {etcd.Config{Endpoints: []string{"http://" + closed, "http://127.0.0.1:1"}}, store.ErrUnavailable, []string{"connection refused"}},
		"no socket":     {etcd.Config{Endpoints: []string{"unix://" + nowhere}}, store.ErrUnavailable, []string{nowhere, "no such file"}},
		"silent":        {etcd.Config{Endpoints: []string{"http://" + silent}}, store.ErrUnavailable, []string{silent, "no answer"}},
		"refused, user": {etcd.Config{Endpoints: []string{"http://" + closed}, Username: "u", Password: "p"}, store.ErrUnavailable, []string{"connection refused"}},
		"authority":     {etcd.Config{Endpoints: []string{secure}, CAFile: others.CAFile, CertFile: files.CertFile, KeyFile: files.KeyFile}, store.ErrUnavailable, []string{"x509", "unknown authority"}},
		"no client":     {etcd.Config{Endpoints: []string{secure}, CAFile: files.CAFile}, store.ErrUnavailable, []string{"certificate required"}},
		"plain to TLS":  {etcd.Config{Endpoints: []string{strings.Replace(secure, "unixs", "unix", 1)}}, store.ErrUnavailable, []string{"if it uses TLS"}},
		"TLS to plain":  {etcd.Config{Endpoints: []string{strings.Replace(plain, "unix", "unixs", 1)}, CAFile: files.CAFile}, store.ErrUnavailable, []string{"if it does not use TLS"}},
		"no CA file":    {etcd.Config{Endpoints: []string{secure}, CAFile: nowhere}, nil, []string{nowhere, "no such file"}},
		"empty CA file": {etcd.Config{Endpoints: []string{secure}, CAFile: empty}, nil, []string{empty, "no certificate"}},
		"mismatch":      {etcd.Config{Endpoints: []string{secure}, CertFile: files.CertFile, KeyFile: others.KeyFile}, nil, []string{others.KeyFile, "private key does not match"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.config.DialTimeout = 2 * time.Second
			s, err := etcd.Open(storetest.Context(t), c.config)
			if err == nil {
				s.Close()
				t.Fatal("Open succeeded")
			}
			if got := errors.Is(err, store.ErrUnavailable); got != (c.kind != nil) {
				t.Errorf("%q: ErrUnavailable is %v", err, got)
			}
			for _, part := range append(c.says, "etcd: ") {
				if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%q does not say %q in one line", err, part)
				}
			}
		})
	}
}

func TestOpenEndsWithContext(t *testing.T) {
	for _, user := range []string{"", "u"} {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		_, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{"http://" + silentPort(t)}, Username: user, Password: user, DialTimeout: storetest.Timeout})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("user %q: Open gives %v, want context.Canceled", user, err)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	files := etcdtest.NewTLS(t)
	s, err := etcd.Open(storetest.Context(t), etcd.Config{
		Endpoints: []string{etcdtest.StartTLS(t, files).Endpoint},
		CAFile:    files.CAFile, CertFile: files.CertFile, KeyFile: files.KeyFile,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storetest.MustCommit(t, s, store.Create(storetest.Pool("p", "10.0.0.0/16")))
}

func TestUsers(t *testing.T) {
	t.Parallel()
	srv := etcdtest.StartServer(t)
	c, ctx := srv.Client(), storetest.Context(t)
	for _, step := range []func() error{
		func() error { _, err := c.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.UserAdd(ctx, "nobody", "secret"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	try := func(user, password string) error {
		s, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{srv.Endpoint}, Username: user, Password: password})
		if err == nil {
			defer s.Close()
			_, err = s.Commit(ctx, []store.Op{store.Create(storetest.Pool("p", "10.0.0.0/16"))})
		}
		return err
	}
	if err := try("root", "secret"); err != nil {
		t.Errorf("root: %v", err)
	}
	for _, who := range [][2]string{{"root", "wrong"}, {"nobody", "secret"}, {"", ""}} {
		if err := try(who[0], who[1]); !errors.Is(err, store.ErrForbidden) {
			t.Errorf("%q: %v, want ErrForbidden", who, err)
		}
	}
}
