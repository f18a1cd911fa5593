package netlink_test

import (
	"testing"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

func TestFeatures(t *testing.T) {
	ns := nstest.New(t)
	h, err := netlink.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.LinkAdd(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: "a"}, PeerName: "b"}); err != nil {
		t.Fatal(err)
	}
	l, err := h.LinkByName("a")
	if err != nil {
		t.Fatal(err)
	}
	index := l.Attrs().Index
	const one, two, other = "tx-udp_tnl-segmentation", "tx-gre-segmentation", "tx-checksum-ip-generic"
	on, err := h.Features(index)
	if err != nil || !on[one] || !on[two] || !on[other] || on["no-such"] {
		t.Fatalf("got %v, %v", on, err)
	}
	if err := h.FeaturesOff(index, one, two); err != nil {
		t.Fatal(err)
	}
	on, err = h.Features(index)
	if err != nil || on[one] || on[two] || !on[other] {
		t.Errorf("got %v, %v", on, err)
	}
	if err := h.FeaturesOff(index, "no-such"); err == nil {
		t.Error("a feature that does not exist was turned off")
	}
	if _, err := h.Features(4711); err == nil {
		t.Error("a link that does not exist has features")
	}
}

// A Handle's Do runs in its namespace, also when the descriptor it was opened with is closed.
func TestHandleDo(t *testing.T) {
	ns := nstest.New(t)
	fd, err := unix.Dup(ns)
	if err != nil {
		t.Fatal(err)
	}
	h, err := netlink.Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	inode := func() (n uint64) {
		var st unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
			t.Error(err)
		}
		return st.Ino
	}
	var want, got uint64
	if err := netlink.Do(ns, func() error { want = inode(); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := h.Do(func() error { got = inode(); return nil }); err != nil || got != want {
		t.Errorf("ran in %d, not %d: %v", got, want, err)
	}
	h.Close()
	if err := h.Do(func() error { t.Error("ran after Close"); return nil }); err == nil {
		t.Error("no error after Close")
	}
}
