package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Watch returns a Source of the objects of kinds, of all if there are none. Besides its
// changes it gives an Update without events each Heartbeat, if only to say that the view
// is that of this moment. It returns nothing but ctx's error, unless a kind is unknown.
func (s *Store) Watch(kinds ...string) store.Source {
	if len(kinds) == 0 {
		for _, k := range api.Kinds() {
			kinds = append(kinds, k.Name)
		}
	}
	return &source{store: s, kinds: kinds}
}

type source struct {
	store *Store
	kinds []string
}

// manyKinds of a source are listed with one read of whatever is below what their prefixes have in common:
// it is little more, and a read for each takes as long as all else of a small list.
const manyKinds = 10

// Run lists, watches from there, and when the watch ends goes on where it ended or, if
// etcd no longer knows what came then, lists again.
func (src *source) Run(ctx context.Context, sink func(store.Update)) error {
	f := &follower{store: src.store, sink: sink, seen: map[store.Key]store.Revision{}, lost: true}
	for _, name := range src.kinds {
		k := store.Key{Kind: name}
		if err := k.CheckKind(); err != nil {
			return err
		}
		f.codecs = append(f.codecs, codecOf(k))
		f.prefixes = append(f.prefixes, codecOf(k).prefixes...)
	}
	if len(src.kinds) > manyKinds {
		f.prefixes = []string{commonPrefix(f.prefixes)}
	}
	for {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.troubled = true
		src.store.Notify(err)
		if !f.rest(ctx) {
			return ctx.Err()
		}
	}
}

// follower is one Run.
type follower struct {
	store    *Store
	codecs   []*codec
	prefixes []string
	sink     func(store.Update)

	rev     store.Revision               // of the last complete Update
	seen    map[store.Key]store.Revision // the objects handed on, and as of when
	cluster uint64                       // etcd's cluster ID
	lost    bool                         // what came after rev is not known: list
	inSync  bool                         // the first snapshot is complete
	words   words                        // while everything is read

	troubled bool // Notify was told so
	failures int  // since it last went well
}

// Waits between attempts double from the first to the last, and each is cut by up to a
// half at random, so that many nodes do not return at once.
const (
	firstRest = 50 * time.Millisecond
	lastRest  = 2 * time.Second
)

// rest waits before the next attempt; false if ctx has ended.
func (f *follower) rest(ctx context.Context) bool {
	d := min(firstRest<<min(f.failures, 10), lastRest)
	f.failures++
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// follow brings the view up to date and keeps it so until something fails.
func (f *follower) follow(ctx context.Context) error {
	if err := f.check(ctx); err != nil {
		return err
	}
	if f.lost {
		if err := f.list(ctx); err != nil {
			return err
		}
	}
	return f.watch(ctx)
}

// check has etcd answer before a watch is opened: a watch keeps the reason to itself
// when it cannot be, and does not mind if the server knows less than we.
func (f *follower) check(ctx context.Context) error {
	r, err := f.store.fast(ctx, "watch", probe)
	if err != nil {
		return err
	}
	return f.admit(r.Header.ClusterId, r.Header.Revision)
}

// admit refuses a server whose contents are older than what was handed on. If it lags
// behind, another attempt will do. If etcd was restored from a backup or replaced, it is
// refused until its revisions have overtaken ours, and nothing that we have seen counts.
func (f *follower) admit(cluster uint64, rev store.Revision) error {
	replaced := f.cluster != 0 && cluster != f.cluster
	if rev >= f.rev && !replaced {
		f.cluster = cluster
		return nil
	}
	f.lost = true
	for k := range f.seen {
		f.seen[k] = 0 // the same revision need not be the same value
	}
	if rev < f.rev {
		return fmt.Errorf("etcd: %w: it is at revision %d, older than revision %d that was read before; was it restored from a backup?", store.ErrUnavailable, rev, f.rev)
	}
	f.cluster = cluster
	return fmt.Errorf("etcd: it is another cluster now (ID %x); reading everything again", cluster)
}

// list reads everything and hands on what is not as it was. The first snapshot is given
// page by page; later ones as one Update, for the view is in use.
func (f *follower) list(ctx context.Context) error {
	p := pager{store: f.store, what: "list", prefixes: f.prefixes}
	f.words = words{}
	defer func() { f.words = nil }()
	absent := maps.Clone(f.seen) // as long as it is not found
	var events []store.Event
	err := p.each(ctx, func(page []*keyValue, last bool) error {
		if err := f.admit(p.cluster, p.rev); err != nil {
			return err
		}
		found := f.readable(page)
		for _, v := range found {
			delete(absent, v.key)
		}
		events = f.values(events, found)
		if !f.inSync && !last && len(events) > 0 {
			f.sink(store.Update{Events: events, Revision: f.rev})
			events = nil
		}
		return nil
	})
	if err != nil {
		f.unsee(events)
		return err
	}
	for k := range absent {
		events = append(events, store.Event{Key: k})
		delete(f.seen, k)
	}
	f.lost = false
	f.say(events, p.rev)
	return nil
}

// unsee has the next list hand on events that this one read but could not.
func (f *follower) unsee(events []store.Event) {
	for _, e := range events {
		f.seen[e.Key] = 0
	}
}

// codecAt returns the codec of what lies at path; nil if that was not asked for.
func (f *follower) codecAt(path string) *codec {
	for _, c := range f.codecs {
		if c.at(path) {
			return c
		}
	}
	return nil
}

// present is a key that is there and its value, once it is decoded.
type present struct {
	*keyValue
	codec  *codec
	path   string
	key    store.Key
	object api.Object
	err    error
}

// readable returns those of kvs that were asked for and whose keys can be read. Keys that cannot
// are told.
func (f *follower) readable(kvs []*keyValue) []present {
	all := make([]present, 0, len(kvs))
	for _, kv := range kvs {
		v := present{keyValue: kv, path: string(kv.Key)}
		if v.codec = f.codecAt(v.path); v.codec == nil {
			continue
		}
		if v.key, v.err = v.codec.key(v.path); v.err != nil {
			f.store.Bad(v.path, v.err)
			continue
		}
		all = append(all, v)
	}
	return all
}

// values adds the events of present keys to events, but of those that were handed on before. What
// cannot be read changes nothing but is told.
func (f *follower) values(events []store.Event, all []present) []store.Event {
	fresh := slices.DeleteFunc(all, func(v present) bool { return f.seen[v.key] == v.ModRevision })
	decode(fresh)
	events = slices.Grow(events, len(fresh))
	for i := range fresh {
		v := &fresh[i]
		if v.err != nil {
			f.seen[v.key] = v.ModRevision
			f.store.Bad(v.path, v.err)
			continue
		}
		f.words.share(v.object)
		k := v.key
		if own := (store.Key{Kind: k.Kind, Namespace: v.object.GetNamespace(), Name: v.object.GetName()}); own == k {
			k = own // whose memory the object needs anyhow; path's can go
		}
		f.seen[k] = v.ModRevision
		events = append(events, store.Event{Key: k, Object: v.object})
	}
	return events
}

// decode decodes values, many of them on as many processors as there are.
func decode(all []present) {
	const share = 64 // is worth a goroutine
	var wg sync.WaitGroup
	for part := range slices.Chunk(all, max(share, (len(all)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))) {
		work := func() {
			for i := range part {
				v := &part[i]
				v.object, v.err = v.codec.read(v.key, v.path, v.Value, v.ModRevision)
			}
		}
		if len(part) < share {
			work()
		} else {
			wg.Go(work)
		}
	}
	wg.Wait()
}

// say hands on an Update that completes the view at rev.
func (f *follower) say(events []store.Event, rev store.Revision) {
	f.rev, f.inSync = rev, true
	f.sink(store.Update{Events: events, Revision: rev, InSync: true})
}

// silentHeartbeats without a word from etcd end a watch.
const silentHeartbeats = 4

var errSilent = errors.New("etcd: the watch has gone silent; connecting anew")

// watch hands on what changes after f.rev until the stream fails. One stream carries
// all kinds, so that the changes of one transaction come together.
func (f *follower) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	// A watcher of its own is a stream of its own: it ends wholly, and its progress is
	// nobody else's.
	w := clientv3.NewWatcher(f.store.client)
	defer w.Close()

	patience := silentHeartbeats * f.store.Heartbeat
	impatient := time.AfterFunc(patience, cancel) // Watch waits for the server's word
	stream := w.Watch(ctx, commonPrefix(f.prefixes), clientv3.WithPrefix(), clientv3.WithRev(f.rev+1),
		clientv3.WithCreatedNotify(), clientv3.WithProgressNotify())
	if !impatient.Stop() {
		return errSilent
	}
	beat := time.NewTicker(f.store.Heartbeat)
	defer beat.Stop()
	for silent := 0; silent <= silentHeartbeats; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r, ok := <-stream:
			if !ok {
				return errors.New("etcd: the watch has ended")
			}
			silent = 0
			if err := f.take(r); err != nil {
				return err
			}
		case <-beat.C:
			silent++
			f.ask(ctx, w)
		}
	}
	return errSilent
}

// ask requests a progress notification. That the request could not be sent is noticed
// by the answer's absence.
func (f *follower) ask(ctx context.Context, w clientv3.Watcher) {
	ctx, cancel := context.WithTimeout(ctx, f.store.Heartbeat/2)
	defer cancel()
	_ = w.RequestProgress(ctx)
}

// take hands on one response of the watch.
func (f *follower) take(r clientv3.WatchResponse) error {
	if r.CompactRevision != 0 {
		f.lost = true
		return fmt.Errorf("etcd: the changes up to revision %d are compacted away; reading everything again", r.CompactRevision)
	}
	if err := r.Err(); err != nil {
		return fmt.Errorf("etcd: watch: %w: %s", class(err), cause(err))
	}
	if err := f.admit(r.Header.ClusterId, r.Header.Revision); err != nil {
		return err
	}
	if f.troubled {
		f.troubled = false
		f.store.Notify(nil)
	}
	f.failures = 0
	switch {
	case r.IsProgressNotify():
		f.say(nil, r.Header.Revision)
	case len(r.Events) > 0:
		f.change(r.Events)
	}
	return nil
}

// change hands on the events of one response. etcd does not split a transaction's
// events among responses. Of several events of a key only the last is decoded.
func (f *follower) change(changes []*clientv3.Event) {
	last := make(map[string]int, len(changes))
	for i, e := range changes {
		last[string(e.Kv.Key)] = i
	}
	var events []store.Event
	for i, e := range changes {
		c := f.codecAt(string(e.Kv.Key))
		if c == nil || last[string(e.Kv.Key)] != i || e.Kv.ModRevision <= f.rev {
			continue
		}
		if e.Type == clientv3.EventTypePut {
			events = f.values(events, f.readable([]*keyValue{e.Kv}))
		} else if k, err := c.key(string(e.Kv.Key)); err == nil {
			delete(f.seen, k)
			events = append(events, store.Event{Key: k})
		}
	}
	f.say(events, changes[len(changes)-1].Kv.ModRevision)
}

// commonPrefix is what all prefixes begin with, up to a slash; a lone prefix whole.
func commonPrefix(prefixes []string) string {
	common := prefixes[0]
	for _, p := range prefixes[1:] {
		for !strings.HasPrefix(p, common) {
			common = common[:strings.LastIndexByte(common[:len(common)-1], '/')+1]
		}
	}
	return common
}
