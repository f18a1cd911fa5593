package main

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// startEtcd starts a cluster of one and returns when it serves. It implements
// lab.StartDatastore.
func startEtcd(dir, socket string, listen netip.AddrPort) (<-chan error, error) {
	cfg := embed.NewConfig()
	cfg.Name = "lab"
	cfg.Dir = dir
	cfg.Logger, cfg.LogLevel, cfg.LogOutputs = "zap", "error", []string{"stderr"}
	client := url.URL{Scheme: "http", Host: listen.String()}
	// Nobody is a peer; the loopback device of the lab's own network namespace.
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	cfg.ListenClientUrls = []url.URL{{Scheme: "unix", Path: socket}, client}
	cfg.AdvertiseClientUrls = []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.Name + "=" + peer.String()
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case <-server.Server.ReadyNotify():
		return server.Err(), os.Chmod(socket, 0o600)
	case err := <-server.Err():
		return nil, fmt.Errorf("not ready: %w", err)
	case <-time.After(30 * time.Second):
		return nil, errors.New("not ready after 30 s")
	}
}
