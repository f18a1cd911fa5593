package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/ipam"
	"github.com/calicogo/calico/store"
)

// away is a datastore that can be taken away.
type away struct {
	store.Store
	gone  atomic.Bool
	tries atomic.Int32
}

func (a *away) err() error {
	if !a.gone.Load() {
		return nil
	}
	a.tries.Add(1)
	return fmt.Errorf("%w: no answer", store.ErrUnavailable)
}

func (a *away) Get(ctx context.Context, k store.Key) (api.Object, error) {
	if err := a.err(); err != nil {
		return nil, err
	}
	return a.Store.Get(ctx, k)
}

func (a *away) List(ctx context.Context, kind, ns string) ([]api.Object, store.Revision, error) {
	if err := a.err(); err != nil {
		return nil, 0, err
	}
	return a.Store.List(ctx, kind, ns)
}

func (a *away) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	if err := a.err(); err != nil {
		return 0, err
	}
	return a.Store.Commit(ctx, ops)
}

func TestGCWithoutADatastore(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var pods []pod
	for i := range 5 {
		pods = append(pods, b.pod(fmt.Sprint("pod", i), fmt.Sprint("c", i)))
		b.add(pods[i])
	}
	b.stop()
	b.prepare()
	a := &away{Store: b.store}
	b.srv.cfg.Store, b.srv.cfg.Allocator = a, ipam.NewAllocator(a, "n1")
	a.gone.Store(true)
	gc := b.request("GC", pod{}, "", "")
	gc.Config = json.RawMessage(`{"name":"k8s-pod-network","cniVersion":"1.1.0","cni.dev/valid-attachments":[{"containerID":"c0","ifname":"eth0"}]}`)
	if err := b.call(gc, b.ns); err != nil {
		t.Errorf("GC: %v", err)
	}
	if n := a.tries.Load(); n > 2 {
		t.Errorf("the datastore was asked %d times although it was away", n)
	}
	if n := len(b.recs.Pending()); n != 4 {
		t.Errorf("%d records are pending, want 4", n)
	}
	for i, p := range pods {
		if _, err := b.h.LinkByName(hostDevice(p.name)); (err == nil) != (i == 0) {
			t.Errorf("device of %s: %v", p.name, err)
		}
	}
	b.start()
	b.wait("the rest is given back", func() bool { return len(b.recs.Pending()) == 0 })
	b.del(pods[0])
	b.nothingLeft()
}

func TestStatusSaysWhetherAddWorks(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	status := func() error {
		return b.runtimeCNI().GetStatusNetworkList(t.Context(), b.conf("1.1.0", ""))
	}
	if err := status(); err != nil {
		t.Errorf("all is well: %v", err)
	}
	b.stop()
	b.prepare()
	var unable, limited error
	pools := b.srv.cfg.Pools
	none := false
	b.srv.cfg.Unable = func() error { return unable }
	b.srv.cfg.Limited = func() error { return limited }
	b.srv.cfg.Pools = func(ctx context.Context) ([]*api.IPPool, *api.Node, error) {
		ps, n, err := pools(ctx)
		for _, p := range ps {
			p.Spec.Disabled = none
		}
		return ps, n, err
	}
	for _, c := range []struct {
		name            string
		closed, noPool  bool
		unable, limited error
		code            uint
	}{
		{name: "well"},
		{name: "not open", closed: true, code: 50},
		{name: "no datastore", unable: errors.New("etcd is away"), code: 50},
		{name: "no pool", noPool: true, code: 50},
		{name: "no kernel", unable: errors.New("etcd is away"), limited: errors.New("nft: refused"), code: 51},
	} {
		b.srv.open.Store(!c.closed)
		unable, limited, none = c.unable, c.limited, c.noPool
		err := b.call(b.request("STATUS", pod{}, "", ""), b.ns)
		var e *wire.Error
		if c.code == 0 && err != nil || c.code != 0 && (!errors.As(err, &e) || e.Code != c.code || e.Msg == "") {
			t.Errorf("%s: got %v, want code %d", c.name, err, c.code)
		}
	}
}
