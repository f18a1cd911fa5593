package ipam

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/memory"
)

// slow is a store that takes commits of addresses and makes them only when told.
type slow struct {
	store.Store
	cancel context.CancelFunc // the caller goes away as the commit is sent
	late   []store.Op
}

func (s *slow) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	if s.late != nil || !assigns(ops) {
		return s.Store.Commit(ctx, ops)
	}
	for _, op := range ops { // as they were sent
		op.Object = api.Clone(op.Object)
		s.late = append(s.late, op)
	}
	s.cancel()
	return 0, context.Canceled
}

func assigns(ops []store.Op) bool {
	for _, op := range ops {
		if op.Key.Kind == api.KindIPAMHandle.Name && op.Object != nil {
			return true
		}
	}
	return false
}

// land makes the commit that was on its way.
func (s *slow) land(t *testing.T) error {
	t.Helper()
	if s.late == nil {
		t.Fatal("no commit was on its way")
	}
	_, err := s.Store.Commit(context.Background(), s.late)
	return err
}

// TestACommitThatComesAfterTheReleaseIsRefused gives an assignment up while its commit is
// on its way, releases, and lets the commit arrive then.
func TestACommitThatComesAfterTheReleaseIsRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		next  func(*Allocator, store.Store) *Allocator
		lands bool // before the release
	}{
		{name: "released by the same process", next: func(a *Allocator, _ store.Store) *Allocator { return a }},
		{name: "released by the next process", next: func(_ *Allocator, s store.Store) *Allocator {
			a := NewAllocator(s, "n")
			a.Suspect()
			return a
		}},
		{name: "it arrives before the release", next: func(a *Allocator, _ store.Store) *Allocator { return a }, lands: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &slow{Store: memory.New()}
			a := NewAllocator(s, "n")
			p := testPool("p", "10.0.0.0/26", 28)
			configure(t, s, api.IPAMConfigurationSpec{})
			claimFirst(t, s, p)
			ctx, cancel := context.WithCancel(t.Context())
			s.cancel = cancel
			if _, err := a.Assign(ctx, ask("pod", t0, p), nil); !errors.Is(err, context.Canceled) {
				t.Fatalf("assign: %v, want it to be given up", err)
			}
			if c.lands {
				if err := s.land(t); err != nil {
					t.Fatal(err)
				}
			}
			a = c.next(a, s)
			mustRelease(t, a, "pod", t0)
			if !c.lands {
				if err := s.land(t); !errors.Is(err, store.ErrConflict) {
					t.Errorf("the late commit: %v, want it refused", err)
				}
			}
			if hs := listAll[*api.IPAMHandle](t, s, api.KindIPAMHandle); len(hs) > 0 {
				t.Errorf("left: %v", hs[0].Name)
			}
			checkStore(t, s)
			mustAssign(t, a, ask("next", t0.Add(time.Hour), p))
			checkStore(t, s)
		})
	}
}

// claimFirst gives node n a block, so that assignments are one commit.
func claimFirst(t *testing.T, s *slow, p *api.IPPool) {
	t.Helper()
	a := NewAllocator(s.Store, "n")
	mustAssign(t, a, ask("first", t0, p))
	mustRelease(t, a, "first", t0)
}

func TestADoubtfulBlockThatIsGoneIsNoTrouble(t *testing.T) {
	s := newSpy()
	a := NewAllocator(s, "n")
	p := testPool("p", "10.0.0.0/26", 28)
	mustAssign(t, a, ask("pod", t0, p))
	mustRelease(t, a, "pod", t0)
	b := listBlocks(t, s)[0]
	a.doubtBlocks(b.cidr)
	if _, err := s.Store.Commit(t.Context(), []store.Op{{Key: store.KeyOf(b.obj), Revision: store.AnyRevision}}); err != nil {
		t.Fatal(err)
	}
	s.since()
	mustAssign(t, a, ask("next", t0, p))
	if len(a.doubt) != 0 {
		t.Errorf("still in doubt: %v", a.doubt)
	}
}

// TestADoubtfulBlockThatCannotBeRead any more holds up nobody who has to do with others.
func TestADoubtfulBlockThatCannotBeRead(t *testing.T) {
	s := newSpy()
	a := NewAllocator(s, "n")
	p := testPool("p", "10.0.0.0/26", 28)
	mustAssign(t, a, ask("pod", t0, p))
	b := listBlocks(t, s)[0]
	broken := api.Clone(b.obj)
	broken.Spec.Allocations = nil
	if _, err := s.Store.Commit(t.Context(), []store.Op{store.Put(broken)}); err != nil {
		t.Fatal(err)
	}
	a.loaded = false
	a.doubtBlocks(b.cidr)
	mustRelease(t, a, "other", t0)
	if got := mustAssign(t, a, ask("next", t0, p)); b.cidr.Contains(got) {
		t.Errorf("%v is of the block that cannot be read", got)
	}
}
