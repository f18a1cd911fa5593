// Package etcd is a [store.Store] on etcd v3, with the keys and bodies that upstream
// Calico has there: v3 resources as JSON below /calico/resources/v3, IPAM in a form of
// its own below /calico/ipam/v2. A Commit is one etcd transaction, and the revision of
// an object is the mod revision of its key.
//
// It does not validate objects beyond what their place in etcd requires, runs no etcd,
// and knows nothing of the keys below /calico that are no object of package api.
//
// Freshness is told by requested progress notifications, which etcd answers truthfully
// from 3.4.25 and 3.5.8 on.
package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Store is a datastore in etcd. Make one with [Open] or [New]; set its fields before it
// is used. Its callbacks may be called from several goroutines.
type Store struct {
	// Now dates new objects; default time.Now.
	Now func() time.Time
	// Bad is told of each key whose value is not what it should be. List leaves such
	// an object out; Watch keeps what it last gave for that key.
	Bad func(key string, err error)
	// Notify is told why a Source has to begin anew, and nil when it goes on.
	Notify func(error)
	// Timeout bounds each request, so that a silent server is an error; default 10 s.
	Timeout time.Duration
	// Heartbeat is how often a Source asks etcd how far it is, and so the age of its
	// Updates at most; default 3 s. After four without an answer it connects anew.
	Heartbeat time.Duration
	// PageSize is how many objects a range asks for; default 500.
	PageSize int64

	client    *clientv3.Client
	endpoints []string    // as URLs
	tls       *tls.Config // of the endpoints, if they use it
	owned     bool        // Open made the client
	opened    bool        // etcd has answered once
}

// New returns a Store on a client that was made by clientv3.New and that the caller
// closes.
func New(client *clientv3.Client) *Store {
	s := &Store{
		Now: time.Now, Bad: func(string, error) {}, Notify: func(error) {},
		Timeout: 10 * time.Second, Heartbeat: 3 * time.Second, PageSize: 500,
		client: client, opened: true,
	}
	if client != nil {
		s.endpoints = client.Endpoints()
	}
	return s
}

// Close ends the connections if Open made them.
func (s *Store) Close() error {
	if !s.owned {
		return nil
	}
	return s.client.Close()
}

// Get returns the object; ErrInvalid, naming the key, if its value cannot be read.
func (s *Store) Get(ctx context.Context, k store.Key) (api.Object, error) {
	if err := k.Check(); err != nil {
		return nil, err
	}
	c := codecOf(k)
	kv, err := s.fetch(ctx, c, k)
	if err != nil {
		return nil, err
	}
	if kv == nil {
		return nil, &store.OpError{Key: k, Err: store.ErrNotFound}
	}
	return c.read(k, string(kv.Key), kv.Value, kv.ModRevision)
}

// List returns the objects of a kind. Those that cannot be read are left out, and Bad
// is told.
func (s *Store) List(ctx context.Context, kind, namespace string) ([]api.Object, store.Revision, error) {
	k := store.Key{Kind: kind, Namespace: namespace}
	if err := k.CheckKind(); err != nil {
		return nil, 0, err
	}
	if strings.Contains(namespace, "/") {
		return nil, 0, invalid(k, "a namespace must not contain a slash")
	}
	c := codecOf(k)
	prefixes := c.prefixes
	if namespace != "" {
		prefixes = []string{c.prefixes[0] + namespace + "/"}
	}
	var found []api.Object
	p := pager{store: s, what: "list " + kind, prefixes: prefixes}
	for !p.done() {
		page, err := p.next(ctx)
		if err != nil {
			return nil, 0, err
		}
		for _, kv := range page {
			o, err := c.readKV(kv)
			if err != nil {
				s.Bad(string(kv.Key), err)
				continue
			}
			found = append(found, o)
		}
	}
	slices.SortFunc(found, func(a, b api.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return found, p.rev, nil
}

// fetch returns the key's value wherever it is, nil if there is none.
func (s *Store) fetch(ctx context.Context, c *codec, k store.Key, opts ...clientv3.OpOption) (*keyValue, error) {
	paths, err := c.paths(k)
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		r, err := s.get(ctx, fmt.Sprintf("get %v", k), p, opts...)
		if err != nil {
			return nil, err
		}
		if len(r.Kvs) > 0 {
			return r.Kvs[0], nil
		}
	}
	return nil, nil
}

// get is a bounded range request.
func (s *Store) get(ctx context.Context, what, path string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return s.ask(ctx, s.patient(ctx), what, path, opts...)
}

// fast is a get that does not wait for a connection and leaves out the value.
func (s *Store) fast(ctx context.Context, what, path string) (*clientv3.GetResponse, error) {
	return s.ask(ctx, &attempt{fast: true}, what, path, clientv3.WithKeysOnly())
}

func (s *Store) ask(ctx context.Context, a *attempt, what, path string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	within, cancel := context.WithTimeout(a.in(ctx), s.Timeout)
	defer cancel()
	r, err := s.client.Get(within, path, opts...)
	if err != nil {
		return nil, s.failure(ctx, what, err, a)
	}
	return r, nil
}
