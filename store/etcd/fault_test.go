package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
	"github.com/calicogo/calico/store/etcd/etcdtest"
	"github.com/calicogo/calico/store/storetest"
)

// troubles collects what a Store says to Notify.
type troubles struct {
	mu   sync.Mutex
	cond *sync.Cond
	all  []error
	over bool
}

func listen(s *etcd.Store) *troubles {
	tr := &troubles{}
	tr.cond = sync.NewCond(&tr.mu)
	s.Notify = func(err error) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.all = append(tr.all, err)
		tr.cond.Broadcast()
	}
	return tr
}

// wait waits for a trouble after the first n that says what; "" stands for its end. It
// returns how many there have been.
func (tr *troubles) wait(t *testing.T, n int, what string) int {
	t.Helper()
	timer := time.AfterFunc(storetest.Timeout, func() {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.over = true
		tr.cond.Broadcast()
	})
	defer timer.Stop()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for {
		for i := n; i < len(tr.all); i++ {
			if err := tr.all[i]; err == nil && what == "" || err != nil && what != "" && strings.Contains(err.Error(), what) {
				return i + 1
			}
		}
		if tr.over {
			t.Fatalf("never heard %q, only %v", what, tr.all)
		}
		tr.cond.Wait()
	}
}

// history is what the store held at each revision at which it changed.
type history struct {
	store *etcd.Store
	revs  []store.Revision
	held  []map[store.Key]api.Object
}

// scribble makes one random commit and notes what is there after it. Nobody else may
// write.
func (h *history) scribble(t *testing.T, r *rand.Rand) {
	t.Helper()
	storetest.Scribble(t, h.store, r, 1)
	held, rev := storetest.Contents(t, h.store, "NetworkPolicy", "IPPool")
	if n := len(h.revs); n == 0 || h.revs[n-1] != rev {
		h.revs, h.held = append(h.revs, rev), append(h.held, held)
	}
}

// at returns what the store held at rev.
func (h *history) at(rev store.Revision) map[store.Key]api.Object {
	held := map[store.Key]api.Object{}
	for i, r := range h.revs {
		if r <= rev {
			held = h.held[i]
		}
	}
	return held
}

// check plays the Updates back and compares the view after each with the store at that
// revision: nothing is lost, nothing invented.
func (h *history) check(t *testing.T, updates []store.Update) {
	t.Helper()
	view := map[store.Key]api.Object{}
	for i, u := range updates {
		for _, e := range u.Events {
			if e.Object == nil {
				delete(view, e.Key)
			} else {
				view[e.Key] = e.Object
			}
		}
		if !u.InSync {
			continue
		}
		if diff := cmp.Diff(h.at(u.Revision), view); diff != "" {
			t.Fatalf("update %d: the view at revision %d is not what the store held; -store +view\n%s", i, u.Revision, diff)
		}
	}
}

// TestFaults has one writer next to etcd and Sources behind a link that is cut, held up
// and healed while etcd is restarted and compacted.
func TestFaults(t *testing.T) {
	t.Parallel()
	seed := storetest.Seed(t)
	r := rand.New(rand.NewPCG(seed, 0))
	srv := etcdtest.StartServer(t)
	link := etcdtest.NewLink(t, srv.Endpoint)
	h := &history{store: open(t, srv.Endpoint)}
	h.scribble(t, r)

	far := open(t, link.Endpoint)
	far.Heartbeat, far.Timeout, far.PageSize = 50*time.Millisecond, 500*time.Millisecond, 3
	views := []*storetest.View{storetest.Follow(t, far.Watch()), storetest.Follow(t, far.Watch("IPPool", "NetworkPolicy"))}
	for range 15 {
		fault(link, srv, r)
		for range r.IntN(6) {
			h.scribble(t, r)
		}
		if r.IntN(2) == 0 { // else the faults pile up
			link.Heal()
			views[r.IntN(len(views))].CheckSame(h.store, "NetworkPolicy", "IPPool")
		}
	}
	link.Heal()
	for _, v := range views {
		v.CheckSame(h.store, "NetworkPolicy", "IPPool")
		h.check(t, v.Updates())
	}
}

func fault(link *etcdtest.Link, srv *etcdtest.Server, r *rand.Rand) {
	switch r.IntN(6) {
	case 0:
		link.Cut()
	case 1:
		link.Stall()
	case 2:
		link.Cut() // etcd waits for the streams of its clients before it stops
		srv.Restart()
	case 3:
		srv.Compact()
	case 4:
		link.Heal()
	}
}

// TestCompactedAway cuts a Source off, changes everything and forgets how.
func TestCompactedAway(t *testing.T) {
	t.Parallel()
	srv := etcdtest.StartServer(t)
	link := etcdtest.NewLink(t, srv.Endpoint)
	near, far := open(t, srv.Endpoint), open(t, link.Endpoint)
	far.Heartbeat = 100 * time.Millisecond
	heard := listen(far)

	var ops []store.Op
	for i := range 20 {
		ops = append(ops, store.Create(storetest.Policy("ns", fmt.Sprint("p", i), "old")))
	}
	rev := storetest.MustCommit(t, near, ops...)
	v := storetest.Follow(t, far.Watch())
	v.At(rev)
	link.Cut()
	n := heard.wait(t, 0, "unavailable")
	for i := range 10 {
		storetest.MustCommit(t, near, store.Delete(ops[i].Key, rev))
	}
	storetest.MustCommit(t, near, store.Put(storetest.Policy("ns", "p10", "new")))
	srv.Compact()
	link.Heal()
	n = heard.wait(t, n, "compacted away")
	heard.wait(t, n, "")
	v.CheckSame(near, "NetworkPolicy")

	// What did not change is not said again.
	changes := 0
	for _, u := range v.Updates() {
		if u.Revision > rev {
			changes += len(u.Events)
		}
	}
	if changes != 11 {
		t.Errorf("after the compaction came %d events, want 10 absences and 1 change", changes)
	}
}

// failing is etcd's KV, whose next page but skip of a list fails once when it is armed.
type failing struct {
	clientv3.KV
	skip atomic.Int32 // negative: not armed
}

func (f *failing) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if clientv3.OpGet(key, opts...).Limit() > 0 && f.skip.Load() >= 0 && f.skip.Add(-1) < 0 {
		return nil, errors.New("the page is torn out")
	}
	return f.KV.Get(ctx, key, opts...)
}

// TestTornList has the second page of a later list fail: what stood on the first one must
// be handed on by the list after it.
func TestTornList(t *testing.T) {
	t.Parallel()
	srv := etcdtest.StartServer(t)
	link := etcdtest.NewLink(t, srv.Endpoint)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{link.Endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	kv := &failing{KV: client.KV}
	kv.skip.Store(-1)
	client.KV = kv
	near, far := open(t, srv.Endpoint), etcd.New(client)
	far.Heartbeat, far.Timeout, far.PageSize = 50*time.Millisecond, time.Second, 3
	heard := listen(far)

	var ops []store.Op
	for i := range 8 {
		ops = append(ops, store.Create(storetest.Policy("ns", fmt.Sprint("p", i), "old")))
	}
	rev := storetest.MustCommit(t, near, ops...)
	v := storetest.Follow(t, far.Watch("NetworkPolicy"))
	v.At(rev)
	link.Cut()
	n := heard.wait(t, 0, "no answer")
	storetest.MustCommit(t, near, store.Put(storetest.Policy("ns", "p0", "new")))
	storetest.MustCommit(t, near, store.Delete(ops[7].Key, rev))
	srv.Compact()
	kv.skip.Store(1)
	link.Heal()
	n = heard.wait(t, n, "torn out")
	heard.wait(t, n, "")
	v.CheckSame(near, "NetworkPolicy")
}

// TestSilence holds the link up: the Source must notice that nobody answers.
func TestSilence(t *testing.T) {
	t.Parallel()
	srv := etcdtest.StartServer(t)
	link := etcdtest.NewLink(t, srv.Endpoint)
	near, far := open(t, srv.Endpoint), open(t, link.Endpoint)
	far.Heartbeat, far.Timeout = 50*time.Millisecond, time.Second
	heard := listen(far)
	v := storetest.Follow(t, far.Watch())
	v.At(0)
	link.Stall()
	n := heard.wait(t, 0, "silent")
	heard.wait(t, n, "no answer")
	storetest.MustCommit(t, near, store.Create(storetest.Policy("ns", "p", "")))
	link.Cut() // the stalled connections are lost; new ones are good
	link.Heal()
	v.CheckSame(near, "NetworkPolicy")
	heard.wait(t, n, "")
}

// TestFreshness: the revision moves on though nothing that is watched changes, and is
// said again though it does not move.
func TestFreshness(t *testing.T) {
	t.Parallel()
	srv := etcdtest.StartServer(t)
	s := open(t, srv.Endpoint)
	s.Heartbeat = 50 * time.Millisecond
	v := storetest.Follow(t, s.Watch("IPPool"))
	v.At(0)
	rev := storetest.MustCommit(t, s, store.Create(storetest.Policy("ns", "p", "")))
	v.Wait("to repeat its revision", func(us []store.Update) bool {
		n := len(us)
		return n > 3 && us[n-1].Revision == rev && us[n-2].Revision == rev && us[n-3].Revision == rev
	})
}

// TestRestored replaces etcd by an empty one: while its revisions are older than what
// was seen nothing is taken from it; then its contents are.
func TestRestored(t *testing.T) {
	t.Parallel()
	for _, another := range []bool{false, true} {
		srv := etcdtest.StartServer(t)
		s := open(t, srv.Endpoint)
		s.Heartbeat = 50 * time.Millisecond
		heard := listen(s)
		for i := range 5 {
			storetest.MustCommit(t, s, store.Create(storetest.Policy("ns", fmt.Sprint("p", i), "old")))
		}
		_, rev := storetest.Contents(t, s, "NetworkPolicy")
		v := storetest.Follow(t, s.Watch())
		before := v.At(rev)
		srv.Wipe(another)
		heard.wait(t, 0, "older than revision")
		if got := v.At(rev); !cmp.Equal(got, before) {
			t.Errorf("the view took something from an older cluster: %v", got)
		}
		for i := range 10 { // p4 gets the revision that it had, and another value
			storetest.MustCommit(t, s, store.Create(storetest.Policy("ns", fmt.Sprint("p", i), "new")))
		}
		v.CheckSame(s, "NetworkPolicy")
	}
}

// TestAnotherCluster replaces etcd behind the Source's back by one whose revisions are
// beyond those that were seen.
func TestAnotherCluster(t *testing.T) {
	t.Parallel()
	srv := etcdtest.StartServer(t)
	link := etcdtest.NewLink(t, srv.Endpoint)
	near, far := open(t, srv.Endpoint), open(t, link.Endpoint)
	far.Heartbeat, far.Timeout = 50*time.Millisecond, time.Second
	heard := listen(far)
	v := storetest.Follow(t, far.Watch())
	v.At(storetest.MustCommit(t, near, store.Create(storetest.Policy("ns", "old", ""))))
	link.Cut()
	heard.wait(t, 0, "unavailable")
	srv.Wipe(true)
	for i := range 5 {
		storetest.MustCommit(t, near, store.Create(storetest.Policy("ns", fmt.Sprint("new", i), "")))
	}
	link.Heal()
	heard.wait(t, 0, "another cluster")
	v.CheckSame(near, "NetworkPolicy")
}

func TestBadValues(t *testing.T) {
	t.Parallel()
	srv := etcdtest.StartServer(t)
	s, ctx := open(t, srv.Endpoint), storetest.Context(t)
	s.Heartbeat = 50 * time.Millisecond
	var mu sync.Mutex
	bad := map[string]int{}
	s.Bad = func(key string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if !errors.Is(err, store.ErrInvalid) {
			t.Errorf("Bad(%s, %v): want ErrInvalid", key, err)
		}
		bad[key]++
	}
	const dir = "/calico/resources/v3/projectcalico.org/ippools/"
	raw := srv.Client()
	put := func(key, value string) store.Revision {
		t.Helper()
		r, err := raw.Put(ctx, key, value)
		if err != nil {
			t.Fatal(err)
		}
		return r.Header.Revision
	}
	put(dir+"never", "{")
	put(dir+"a/b", "{}")
	put("/calico/felix/v2/status", "not ours")
	rev := storetest.MustCommit(t, s, store.Create(storetest.Pool("turns", "10.0.0.0/16")), store.Create(storetest.Pool("good", "10.1.0.0/16")))
	v := storetest.Follow(t, s.Watch())
	before := v.At(rev)
	if len(before) != 2 {
		t.Errorf("Watch gives %v, want turns and good", before)
	}
	rev = put(dir+"turns", `{"kind":"IPPool","metadata":{"name":"elsewhere"}}`)
	if got := v.At(rev); !cmp.Equal(got, before) {
		t.Errorf("a bad value changed the view to %v", got)
	}
	pools, _, err := s.List(ctx, "IPPool", "")
	if err != nil || len(pools) != 1 || pools[0].GetName() != "good" {
		t.Errorf("List gives %v, %v, want good", pools, err)
	}
	turns := store.Key{Kind: "IPPool", Name: "turns"}
	if _, err := s.Get(ctx, turns); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), dir+"turns") {
		t.Errorf("Get gives %v, want ErrInvalid with the key", err)
	}
	mu.Lock()
	if want := map[string]int{dir + "never": 2, dir + "a/b": 2, dir + "turns": 2}; !cmp.Equal(bad, want) {
		t.Errorf("Bad was told %v, want %v", bad, want)
	}
	mu.Unlock()
	// It can be made good again, or deleted.
	rev = storetest.MustCommit(t, s, store.Put(storetest.Pool("turns", "10.2.0.0/16")), store.Delete(store.Key{Kind: "IPPool", Name: "never"}, store.AnyRevision))
	if got := v.At(rev)[turns]; got == nil || api.Revision(got) != rev {
		t.Errorf("after a good value the view has %v", got)
	}
}

func TestTooManyOps(t *testing.T) {
	t.Parallel()
	s := open(t, etcdtest.Start(t))
	var ops []store.Op
	for i := range etcd.MaxOps + 1 {
		ops = append(ops, store.Create(storetest.Policy("ns", fmt.Sprint(i), "")))
	}
	if _, err := s.Commit(storetest.Context(t), ops); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "129 ops") {
		t.Errorf("Commit of %d gives %v", len(ops), err)
	}
	storetest.MustCommit(t, s, ops[1:]...)
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	srv := etcdtest.StartServer(t)
	s := open(t, srv.Endpoint)
	s.Timeout = time.Second
	srv.Stop()
	ctx := storetest.Context(t)
	_, get := s.Get(ctx, store.Key{Kind: "IPPool", Name: "p"})
	_, _, list := s.List(ctx, "IPPool", "")
	_, commit := s.Commit(ctx, []store.Op{store.Create(storetest.Pool("p", "10.0.0.0/16"))})
	for what, err := range map[string]error{"Get": get, "List": list, "Commit": commit} {
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("%s gives %v, want ErrUnavailable for want of the socket", what, err)
		}
	}
}

// TestRefused: once a connection was refused requests do not wait for one; they do again
// when the server is back.
func TestRefused(t *testing.T) {
	t.Parallel()
	srv := etcdtest.StartServer(t)
	s := open(t, srv.Endpoint)
	ctx := storetest.Context(t)
	key := store.Key{Kind: "IPPool", Name: "p"}
	srv.Stop()
	s.Timeout = time.Second
	s.Get(ctx, key) // has it try to connect
	s.Timeout = time.Hour
	_, get := s.Get(ctx, key)
	_, _, list := s.List(ctx, "IPPool", "")
	_, commit := s.Commit(ctx, []store.Op{store.Create(storetest.Pool("p", "10.0.0.0/16"))})
	for what, err := range map[string]error{"Get": get, "List": list, "Commit": commit} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s gives %v, want ErrUnavailable", what, err)
		}
	}
	srv.Restart()
	storetest.Follow(t, s.Watch()).At(0) // connected again
	storetest.MustCommit(t, s, store.Create(storetest.Pool("p", "10.0.0.0/16")))
}

// TestAge: new objects are dated, and only then.
func TestAge(t *testing.T) {
	t.Parallel()
	s := open(t, etcdtest.Start(t))
	first := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	now := first
	s.Now = func() time.Time { return now }
	o := storetest.Pool("p", "10.0.0.0/16")
	storetest.MustCommit(t, s, store.Put(o))
	now = first.Add(time.Hour)
	storetest.MustCommit(t, s, store.Put(storetest.Pool("p", "10.1.0.0/16")))
	got, err := s.Get(storetest.Context(t), store.KeyOf(o))
	if err != nil || !got.GetCreationTimestamp().Time.Equal(first) || !o.CreationTimestamp.Time.Equal(first) {
		t.Errorf("created %v, in the object %v (%v), want %v", got.GetCreationTimestamp(), o.CreationTimestamp, err, first)
	}
}
