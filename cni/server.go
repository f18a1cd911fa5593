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
	Pools func(context.Context) ([]*api.IPPool, *api.Node, error)
	MTU   func() (int, error) // of new pods' interfaces
	// Unable says why ADD cannot work now, Limited why attached pods may lack part of
	// their network; nil: they know of nothing. Either may be nil.
	Unable, Limited func() error
	// Trouble says what keeps the node from being ready, for messages; may be nil.
	Trouble func() string
	Log     *slog.Logger
	Socket  string        // default wire.Socket
	Journal string        // default wire.Journal
	Prefix  string        // of host interfaces; default cali
	HostNS  int           // descriptor of the host's namespace, or netlink.Current
	Replay  time.Duration // between tries to give back what is pending; default 10 s
	// Step is called between any two steps of a call, with the name of the last; nil
	// but in tests that kill the agent there. The same call has the same steps.
	Step func(string)
}

// Server answers the plugin. It takes DEL from the start and ADD once it is open.
type Server struct {
	cfg     Config
	host    *netlink.Handle
	deleter *netlink.Deleter // of the host's devices
	open    atomic.Bool
	pods    keyLocks
	warned  sync.Map          // names of ignored configuration that were logged
	told    map[string]string // what replay logged last, by what it is about

	sweeping sync.Mutex
	seen     seen
	suspects map[string]bool // leaks that the last Sweep saw, guarded by sweeping
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
	if len(cfg.Prefix) > maxPrefix {
		return nil, fmt.Errorf("interface prefix %q: new interfaces need one of at most %d characters, so that their names differ", cfg.Prefix, maxPrefix)
	}
	if cfg.Replay == 0 {
		cfg.Replay = 10 * time.Second
	}
	h, err := netlink.Open(cfg.HostNS)
	if err != nil {
		return nil, err
	}
	d, err := netlink.NewDeleter(cfg.HostNS)
	if err != nil {
		h.Close()
		return nil, err
	}
	cfg.Records.Log(cfg.Log)
	if cfg.Records.interrupted { // a commit of its last moments may still be on its way
		cfg.Allocator.Suspect()
	}
	return &Server{
		cfg: cfg, host: h, deleter: d, told: map[string]string{},
		seen: seen{networks: map[string]bool{defaultNetwork: true}},
	}, nil
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
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE): // passes: the node goes on
			s.cfg.Log.Error("CNI socket", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		case err != nil:
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
	resp := &wire.Response{}
	if out, err := s.receive(ctx, c); err == nil {
		resp.Output = out
	} else if !errors.As(err, &resp.Error) {
		resp.Error = wire.Errorf(codeOf(err), "%v", err)
	}
	s.step("handled")
	if err := wire.Reply(c, resp); err != nil {
		s.cfg.Log.Warn("CNI answer was not taken", "error", err)
	}
	s.step("answered")
}

// codeOf is the code of an error that bears none: while the datastore is away, the same
// call can succeed later.
func codeOf(err error) uint {
	if errors.Is(err, store.ErrUnavailable) {
		return wire.CodeTryAgain
	}
	return wire.CodeFailed
}

// receive reads a request and handles it.
func (s *Server) receive(ctx context.Context, c *net.UnixConn) (json.RawMessage, error) {
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
	w, ns, err := wire.Receive(c)
	if err != nil {
		s.cfg.Log.Warn("CNI request cannot be read", "error", err)
		return nil, wire.Errorf(wire.CodeDecode, "request: %v", err)
	}
	if ns != nil {
		defer ns.Close()
	}
	ctx, stop := untilHangup(ctx, c)
	defer stop()
	out, err := s.handle(ctx, w, ns)
	if err != nil {
		s.cfg.Log.Warn("CNI request failed", "command", w.Command, "container", w.ContainerID, "args", w.Args, "error", err)
	}
	return out, err
}

// untilHangup returns a context that ends when the caller goes away. What nobody waits
// for any more is not gone on with: an ADD is undone, and a DEL is in the caller's journal.
func untilHangup(ctx context.Context, c net.Conn) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	c.SetReadDeadline(time.Time{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer cancel()
		_, _ = c.Read(make([]byte, 1)) // nothing more is sent: it returns when the connection ends
	}()
	return ctx, func() {
		c.SetReadDeadline(time.Unix(1, 0))
		<-gone
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

// handle answers one call. Calls for one container, and then for one pod, wait for each
// other.
func (s *Server) handle(ctx context.Context, w *wire.Request, ns *os.File) (json.RawMessage, error) {
	r, err := ParseRequest(w)
	if err != nil {
		return nil, err
	}
	if r.Command == "STATUS" {
		return nil, s.status(ctx)
	}
	if r.Command == "GC" { // of all pods: it takes their locks itself
		return nil, s.gc(ctx, r)
	}
	s.logIgnored(r)
	if r.Command == "ADD" {
		s.seen.network(r.Conf.Name)
	}
	unlockID := s.pods.lock(r.ID.ContainerID + ":" + r.ID.IfName)
	defer unlockID()
	unlock := s.pods.lock(s.podOf(r))
	defer unlock()
	if ctx.Err() != nil {
		return nil, wire.Errorf(wire.CodeTryAgain, "the call was given up while another one for the pod ran")
	}
	switch r.Command {
	case "ADD":
		return s.add(ctx, r, ns)
	case "DEL":
		return nil, s.del(ctx, r)
	}
	return nil, s.check(r, ns)
}

// podOf is the key of the pod that a call is about: the record knows, where a DEL comes
// without the arguments of its ADD.
func (s *Server) podOf(r *Request) string {
	if rec := s.cfg.Records.Get(r.ID); rec != nil {
		return podKey(rec.Namespace, rec.Pod)
	}
	return podKey(r.Namespace, r.Pod)
}

func podKey(namespace, pod string) string { return namespace + "/" + pod }

// waitsFor says why ADD is not open yet.
func (s *Server) waitsFor() string {
	if s.cfg.Trouble != nil {
		if why := s.cfg.Trouble(); why != "" {
			return "calico node is starting: " + why
		}
	}
	return "calico node is starting: it does not know the datastore's contents yet"
}

func (s *Server) logIgnored(r *Request) {
	for _, name := range r.Conf.ignored() {
		if _, before := s.warned.LoadOrStore(name, true); !before {
			s.cfg.Log.Info("CNI configuration has no effect: the agent has its own", "key", name)
		}
	}
}

// keyLocks serialises work by key. The zero value is ready.
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
		if k.m == nil {
			k.m = map[string]*keyLock{}
		}
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
