package etcd_test

import (
	"testing"

	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
	"github.com/calicogo/calico/store/etcd/etcdtest"
	"github.com/calicogo/calico/store/storetest"
)

// open returns a Store on the etcd at endpoint.
func open(t *testing.T, endpoint string) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(storetest.Context(t), etcd.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s := open(t, etcdtest.Start(t))
		s.PageSize = 3 // so that pages are turned
		return s
	})
}
