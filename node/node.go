package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/cni"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/felix"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
	"github.com/calicogo/calico/watch"
)

// cached are the kinds that the node itself reads, besides what the agent makes of them.
var cached = []string{
	api.KindIPPool.Name, api.KindNode.Name, api.KindProfile.Name, api.KindClusterInformation.Name,
	api.KindFelixConfiguration.Name,
}

// runtime is a node's parts, assembled.
type runtime struct {
	cfg   Config
	felix config.Felix // as the environment alone has it: known before the datastore is
	log   *slog.Logger
	net   *netlink.Handle
	store *etcd.Store
	cache *watch.Cache
	poke  watch.Bell // the cache changed
	agent *felix.Agent
	alloc *ipam.Allocator
	cni   *cni.Server
	board *board
	leaks leaks

	tunnel  *tunnelUpkeep
	podsMTU knownMTU // of pods' interfaces
	toldMTU int      // in the file; upkeep's own

	unreadable bool // some object that every cluster has; upkeep's own

	closers []func()
}

// Run runs the node until ctx ends. What stands in the kernel then stays.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	unlock, err := prepareDirs(cfg)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := assemble(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer r.close()
	return r.run(ctx)
}

// prepareDirs makes the node's directories and takes its lock: two agents on one node
// would undo each other's work.
func prepareDirs(cfg Config) (unlock func(), err error) {
	for _, d := range []string{cfg.RunDir, cfg.LibDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	path := cfg.socket("node.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another calico node runs here: it holds %s", path)
	}
	if err := replaceFile(filepath.Join(cfg.LibDir, "nodename"), []byte(cfg.Name), 0o644); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func assemble(ctx context.Context, cfg Config, log *slog.Logger) (r *runtime, err error) {
	r = &runtime{cfg: cfg, log: log, cache: watch.NewCache(cached...), poke: watch.NewBell()}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	r.felix, _ = config.Resolve(cfg.Felix, cfg.FelixFile) // what is wrong with it is told by the agent
	if r.net, err = netlink.Open(netlink.Current); err != nil {
		return nil, err
	}
	r.onClose(r.net.Close)
	if err := netlink.EnableForwarding(netlink.Current); err != nil {
		return nil, err
	}
	cfg.Datastore.Lazy = true // a node starts without a datastore: what stands is kept, DEL works
	if r.store, err = etcd.Open(ctx, cfg.Datastore); err != nil {
		return nil, err
	}
	r.onClose(func() { r.store.Close() })
	r.store.Bad = func(key string, err error) { log.Error("stored value cannot be used", "key", key, "error", err) }
	drivers, closeDrivers, err := felix.KernelDrivers(netlink.Current, r.net, log)
	if err != nil {
		return nil, err
	}
	r.onClose(closeDrivers)
	r.agent = felix.New(felix.Config{Node: cfg.Name, Local: []config.Layer{cfg.Felix, cfg.FelixFile}, Drivers: drivers, Log: log})
	r.board = newBoard(cfg.Name, r.agent)
	r.store.Notify = r.datastoreTrouble
	r.alloc = ipam.NewAllocator(r.stepped(), cfg.Name)
	r.leaks.inventory = cni.NewInventory(cfg.Name)
	r.tunnel = newTunnelUpkeep(r.store, r.alloc, cfg.Name)
	return r, r.assembleCNI()
}

// stepped is the datastore as pods' addresses and endpoints are written to it.
func (r *runtime) stepped() store.Store {
	if r.cfg.Step == nil {
		return r.store
	}
	return cni.StepStore(r.store, r.cfg.Step)
}

func (r *runtime) assembleCNI() error {
	records, err := cni.OpenRecords(filepath.Join(r.cfg.LibDir, "cni"), netlink.Current)
	if err != nil {
		return err
	}
	records.Subscribe(r.agent.SetAttachment)
	r.cni, err = cni.NewServer(cni.Config{
		Node:      r.cfg.Name,
		Store:     r.stepped(),
		Allocator: r.alloc,
		Records:   records,
		Pods:      etcdPods{r.store, r.cache.Get},
		Prefix:    r.felix.InterfacePrefixes[0],
		Dataplane: r.agent,
		Pools:     r.pools,
		MTU:       r.mtu,
		Trouble:   r.board.trouble,
		Unable:    r.board.unable,
		Limited:   r.board.limited,
		Step:      r.cfg.Step,
		Log:       r.log,
		Socket:    r.cfg.socket("cni/cni.sock"),
		Journal:   filepath.Join(r.cfg.LibDir, "cni/del"),
		HostNS:    netlink.Current,
	})
	return err
}

// datastoreTrouble takes down why the view of the datastore is not fresh; nil: it is. It
// is logged when it changes: it is told with each try.
func (r *runtime) datastoreTrouble(err error) {
	if !r.board.note("datastore", err) {
		return
	}
	if err != nil {
		r.log.Warn("the datastore does not answer; what stands in the kernel stays", "error", err)
		return
	}
	r.log.Info("the datastore answers")
}

func (r *runtime) onClose(f func()) { r.closers = append(r.closers, f) }

func (r *runtime) close() {
	for i := len(r.closers) - 1; i >= 0; i-- {
		r.closers[i]()
	}
}

// run runs the parts; the first that ends ends the others.
func (r *runtime) run(ctx context.Context) error {
	l, err := listenUnix(r.cfg.socket("node.sock"))
	if err != nil {
		return err
	}
	source := watch.Tee(r.store.Watch(), r.cacheUpdate)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, l, r.board.handler()) })
	g.Go(func() error { return r.serveHealth(ctx) })
	g.Go(func() error { return source.Run(ctx, r.agent.Update) })
	g.Go(func() error { return r.agent.Run(ctx) })
	g.Go(func() error { return r.cni.Run(ctx) })
	g.Go(func() error { return r.agent.Watch(ctx, netlink.Current) })
	g.Go(func() error { return r.watchMTU(ctx) })
	g.Go(func() error { return r.start(ctx) })
	g.Go(func() error { return r.watchLeaks(ctx) })
	g.Go(func() error { return trimMemory(ctx, r.agent.Busy) })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	r.log.Info("ending; what is in the kernel stays")
	return context.Canceled
}

func (r *runtime) cacheUpdate(u store.Update) {
	r.cache.Update(u)
	r.leaksUpdate(u)
	for _, e := range u.Events {
		switch e.Key.Kind {
		case api.KindIPPool.Name, api.KindNode.Name, api.KindClusterInformation.Name, api.KindFelixConfiguration.Name, api.KindTier.Name:
			r.podsMTU.forget()
			r.poke.Ring()
			return
		}
	}
}

// pools are the pools and the Node resource that an ADD chooses addresses by.
func (r *runtime) pools(context.Context) ([]*api.IPPool, *api.Node, error) {
	n, ok := r.cache.Get(store.Key{Kind: api.KindNode.Name, Name: r.cfg.Name})
	if !ok {
		return nil, nil, fmt.Errorf("node %s is not in the datastore yet", r.cfg.Name)
	}
	return watch.Objects[*api.IPPool](r.cache, api.KindIPPool), n.(*api.Node), nil
}

// serveHealth serves the probes' port where the environment asks for it.
func (r *runtime) serveHealth(ctx context.Context) error {
	f := r.felix
	if !f.HealthEnabled {
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(f.HealthHost, strconv.Itoa(f.HealthPort)))
	if err != nil {
		return fmt.Errorf("health endpoint: %w", err)
	}
	return serve(ctx, l, r.board.health())
}
