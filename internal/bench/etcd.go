package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/calicogo/calico/store/etcd"
)

// patience bounds every wait; meeting it is a failure of what is waited for.
const patience = 60 * time.Second

// server is an etcd in a process of its own.
type server struct {
	cmd      *exec.Cmd
	endpoint string
	raw      *clientv3.Client // for floors
	store    *etcd.Store
}

// startServer starts an empty etcd.
func startServer(ctx context.Context, name string) (*server, error) {
	s := &server{endpoint: "unix:///run/" + name + ".sock"}
	s.cmd = exec.Command("/bin/bench", "etcd", "/var/lib/etcd/"+name, "/run/"+name)
	s.cmd.Stderr = os.Stderr
	ready, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return nil, fmt.Errorf("etcd did not start: %w", s.cmd.Wait())
	}
	s.raw, err = clientv3.New(clientv3.Config{Endpoints: []string{s.endpoint}, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	s.store, err = etcd.Open(ctx, etcd.Config{Endpoints: []string{s.endpoint}})
	return s, err
}

// stop ends it and drops its data.
func (s *server) stop() {
	if s.store != nil {
		s.store.Close()
	}
	if s.raw != nil {
		s.raw.Close()
	}
	s.cmd.Process.Kill()
	s.cmd.Wait()
	os.RemoveAll(s.cmd.Args[2])
}

// put writes n bytes, as a floor does.
func (s *server) put(ctx context.Context, key string, n int) error {
	_, err := s.raw.Put(ctx, key, string(make([]byte, n)))
	return err
}

// serveEtcd is the process: directory, socket without its ending. It writes a byte to its
// standard output when it is ready.
func serveEtcd(args []string) error {
	c := embed.NewConfig()
	c.Name = "bench"
	c.Dir = args[0]
	c.LogLevel, c.LogOutputs = "error", []string{"stderr"}
	c.SnapshotCount = 100_000
	client, peer := url.URL{Scheme: "unix", Path: args[1] + ".sock"}, url.URL{Scheme: "unix", Path: args[1] + ".peer"}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return err
	case <-time.After(patience):
		return errors.New("etcd did not become ready")
	}
	os.Stdout.Write([]byte{1})
	return <-e.Err()
}
