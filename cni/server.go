package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
)

// Dataplane is the agent, as an ADD waits for it.
type Dataplane interface {
	// Programmed returns once the kernel has the attachment's rules and routes.
	Programmed(ctx context.Context, at *dataplane.Attachment) error
}

// Config is what a Server needs.
type Config struct {
	Node      string
	Store     store.Store
	Allocator *ipam.Allocator
	Records   *Records
	Pods      Pods
	Dataplane Dataplane
	// Pools gives the pools and the Node resource that addresses are chosen by.
	Pools   func(context.Context) ([]*api.IPPool, *api.Node, error)
	MTU     func() (int, error) // of new pods' interfaces
	Log     *slog.Logger
	Socket  string        // default wire.Socket
	Journal string        // default wire.Journal
	Prefix  string        // of host interfaces; default cali
	HostNS  int           // descriptor of the host's namespace, or netlink.Current
	Replay  time.Duration // between tries to give back what is pending; default 10 s
}

// Server answers the plugin. It takes DEL from the start and ADD once it is open.
type Server struct {
	cfg    Config
	host   *netlink.Handle
	open   atomic.Bool
	pods   keyLocks
	warned sync.Map // names of ignored configuration that were logged
}

// NewServer returns a Server; [Server.Run] runs it.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Socket == "" {
		cfg.Socket = wire.Socket
	}
	if cfg.Journal == "" {
		cfg.Journal = wire.Journal
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "cali"
	}
	if cfg.Replay == 0 {
		cfg.Replay = 10 * time.Second
	}
	h, err := netlink.Open(cfg.HostNS)
	if err != nil {
		return nil, err
	}
	cfg.Records.Log(cfg.Log)
	return &Server{cfg: cfg, host: h, pods: keyLocks{m: map[string]*keyLock{}}}, nil
}

// Open lets ADDs in.
func (s *Server) Open() { s.open.Store(true) }

// Run serves the socket and replays what is pending until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	l, err := s.listen()
	if err != nil {
		return fmt.Errorf("CNI socket: %w", err)
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.replay(ctx) })
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("CNI socket: %w", err)
		}
		wg.Go(func() {
			defer c.Close()
			s.serve(ctx, c)
		})
	}
}

// listen opens the socket, which only root can reach.
func (s *Server) listen() (*net.UnixListener, error) {
	dir := filepath.Dir(s.cfg.Socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(s.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.cfg.Socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(s.cfg.Socket, 0o600)
}

func (s *Server) serve(ctx context.Context, c *net.UnixConn) {
	if err := rootOnly(c); err != nil {
		s.cfg.Log.Warn("CNI request refused", "error", err)
		return
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	w, ns, err := wire.Receive(c)
	if err != nil {
		s.cfg.Log.Warn("CNI request cannot be read", "error", err)
		return
	}
	if ns != nil {
		defer ns.Close()
	}
	out, err := s.handle(ctx, w, ns)
	resp := &wire.Response{Output: out}
	if err != nil {
		s.cfg.Log.Warn("CNI request failed", "command", w.Command, "container", w.ContainerID, "args", w.Args, "error", err)
		if !errors.As(err, &resp.Error) {
			resp.Error = wire.Errorf(wire.CodeFailed, "%v", err)
		}
	}
	if err := wire.Reply(c, resp); err != nil {
		s.cfg.Log.Warn("CNI answer was not taken", "command", w.Command, "container", w.ContainerID, "error", err)
	}
}

// rootOnly checks the peer's uid, besides the socket's mode.
func rootOnly(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if cred.Uid != 0 {
		return fmt.Errorf("uid %d is not root", cred.Uid)
	}
	return nil
}

// handle answers one call. Calls for one pod wait for each other.
func (s *Server) handle(ctx context.Context, w *wire.Request, ns *os.File) (json.RawMessage, error) {
	r, err := ParseRequest(w)
	if err != nil {
		return nil, err
	}
	s.logIgnored(r)
	unlock := s.pods.lock(r.Namespace + "/" + r.Pod)
	defer unlock()
	switch r.Command {
	case "ADD":
		return s.add(ctx, r, ns)
	case "DEL":
		return nil, s.del(ctx, r)
	case "CHECK":
		return nil, s.check(r, ns)
	case "GC":
		return nil, s.gc(ctx, r)
	}
	return nil, s.ready() // STATUS
}

func (s *Server) ready() error {
	if !s.open.Load() {
		return wire.Errorf(wire.CodeNotAvailable, "calico node is starting: it does not know the datastore's contents yet")
	}
	return nil
}

func (s *Server) logIgnored(r *Request) {
	for _, name := range r.Conf.ignored() {
		if _, before := s.warned.LoadOrStore(name, true); !before {
			s.cfg.Log.Info("CNI configuration has no effect: the agent has its own", "key", name)
		}
	}
}

// keyLocks serialises work by key.
type keyLocks struct {
	mu sync.Mutex
	m  map[string]*keyLock
}

type keyLock struct {
	sync.Mutex
	users int
}

func (k *keyLocks) lock(key string) (unlock func()) {
	k.mu.Lock()
	l := k.m[key]
	if l == nil {
		l = &keyLock{}
		k.m[key] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.m, key)
		}
	}
}
