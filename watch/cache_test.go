package watch

import (
	"context"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

type fixed []store.Update

func (f fixed) Run(_ context.Context, sink func(store.Update)) error {
	for _, u := range f {
		sink(u)
	}
	return context.Canceled
}

func TestCacheHoldsWhatATeedSourceSaid(t *testing.T) {
	pool := func(name string) *api.IPPool { return &api.IPPool{Meta: api.Named(api.KindIPPool, "", name)} }
	event := func(name string, o api.Object) store.Event {
		return store.Event{Key: store.Key{Kind: "IPPool", Name: name}, Object: o}
	}
	c := NewCache("IPPool")
	select {
	case <-c.Synced():
		t.Fatal("synced before a snapshot")
	default:
	}
	var seen int
	src := Tee(fixed{
		{Events: []store.Event{event("b", pool("b")), event("a", pool("a"))}, Revision: 5},
		{Revision: 5, InSync: true},
		{Events: []store.Event{event("b", nil), event("c", pool("c")), {Key: store.Key{Kind: "Tier", Name: "x"}, Object: &api.Tier{}}}, Revision: 7, InSync: true},
	}, c.Update)
	if err := src.Run(t.Context(), func(store.Update) { seen++ }); err != context.Canceled {
		t.Fatal(err)
	}
	<-c.Synced()
	pools := Objects[*api.IPPool](c, api.KindIPPool)
	if len(pools) != 2 || pools[0].Name != "a" || pools[1].Name != "c" {
		t.Errorf("got %v", pools)
	}
	if c.Revision() != 7 || seen != 3 || len(c.List("Tier")) != 0 {
		t.Errorf("revision %d, %d updates passed on, tiers %v", c.Revision(), seen, c.List("Tier"))
	}
}
