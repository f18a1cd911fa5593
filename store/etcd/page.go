package etcd

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

type keyValue = mvccpb.KeyValue

// readKV decodes a key and value of the codec's kind.
func (c *codec) readKV(kv *keyValue) (api.Object, error) {
	path := string(kv.Key)
	k, err := c.key(path)
	if err != nil {
		return nil, err
	}
	return c.read(k, path, kv.Value, kv.ModRevision)
}

// pager reads all keys with one of the prefixes, page by page, as of one revision.
type pager struct {
	store    *Store
	what     string // for errors
	prefixes []string

	rev     store.Revision // of all pages; 0 before the first
	cluster uint64         // etcd's cluster ID
	from    string         // where the next page begins, below prefixes[0]; empty: at its start
}

func (p *pager) done() bool { return len(p.prefixes) == 0 }

// each calls f with every page, which may be empty, and reads the next one meanwhile.
func (p *pager) each(ctx context.Context, f func(page []*keyValue, last bool) error) error {
	type answer struct {
		page []*keyValue
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	coming := make(chan answer, 1)
	read := func() {
		page, err := p.next(ctx)
		coming <- answer{page, err}
	}
	go read()
	for {
		a := <-coming
		if a.err != nil {
			return a.err
		}
		last := p.done()
		if !last {
			go read()
		}
		if err := f(a.page, last); err != nil || last {
			if !last {
				cancel()
				<-coming
			}
			return err
		}
	}
}

// next returns the next page, which may be empty.
func (p *pager) next(ctx context.Context) ([]*keyValue, error) {
	prefix := p.prefixes[0]
	if p.from == "" {
		p.from = prefix
	}
	r, err := p.store.get(ctx, p.what, p.from,
		clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)),
		clientv3.WithLimit(p.store.PageSize), clientv3.WithRev(p.rev))
	if err != nil {
		return nil, err
	}
	if p.rev == 0 {
		p.rev, p.cluster = r.Header.Revision, r.Header.ClusterId
	}
	if r.More && len(r.Kvs) > 0 {
		p.from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	} else {
		p.prefixes, p.from = p.prefixes[1:], ""
	}
	return r.Kvs, nil
}
