package felix

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
	"github.com/calicogo/calico/store"
)

// readBack is a backend that counts how often it is to read the kernel.
type readBack struct {
	*kernel
	compilers []*filter.Compiler
}

func (b *readBack) Compilers() []*filter.Compiler  { return b.compilers }
func (b *readBack) Adopt(cs []*filter.Compiler)    { b.compilers = cs }
func (b *readBack) Clean(context.Context) error    { return nil }
func (b *readBack) Close()                         {}
func (b *readBack) Sync(ctx context.Context) error { return b.kernel.Sync(ctx) }

// The kernel is read back as often as the settings say, from when they say so, and never if they do.
func TestRefreshFollowsTheSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &readBack{kernel: newKernel()}
		r := newRules(func(choice) (backend, error) { return b, nil })
		routes := newKernel()
		a := New(Config{Node: "n1", Log: slog.New(slog.DiscardHandler), Drivers: []Driver{{DriverRules, r}, {DriverRoutes, routes}}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		rev := store.Revision(0)
		configure := func(o *api.FelixConfiguration) {
			rev++
			a.Update(store.Update{Revision: rev, InSync: true, Events: []store.Event{{Key: store.KeyOf(o), Object: o}}})
			synctest.Wait()
		}
		reads := func(d time.Duration) int {
			_, before, _ := b.counts()
			time.Sleep(d)
			synctest.Wait()
			_, after, _ := b.counts()
			return after - before
		}
		configure(felixConfiguration("default", nil))
		if n := reads(30 * time.Minute); n != 10 {
			t.Errorf("%d read-backs in 30 minutes, want one every 3", n)
		}
		configure(felixConfiguration("default", map[string]any{"nftablesRefreshInterval": "7s"}))
		if n := reads(70 * time.Second); n != 10 {
			t.Errorf("%d read-backs in 70 seconds, want one every 7", n)
		}
		configure(felixConfiguration("default", map[string]any{"nftablesRefreshInterval": "0s"}))
		if n := reads(24 * time.Hour); n != 0 {
			t.Errorf("%d read-backs though there shall be none", n)
		}
		configure(felixConfiguration("default", map[string]any{"nftablesMode": "Disabled", "iptablesRefreshInterval": "20s", "ipsetsRefreshInterval": "10s"}))
		if n := reads(95 * time.Second); n < 9 || n > 10 { // the switch may count as one
			t.Errorf("%d read-backs in 95 seconds, want one every 10", n)
		}
		if r.Backend() != dataplane.Iptables {
			t.Errorf("%v is in use", r.Backend())
		}
		if _, n, _ := routes.counts(); n < 900 {
			t.Errorf("the other drivers were had read back %d times in a day, want one every 90 seconds", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
