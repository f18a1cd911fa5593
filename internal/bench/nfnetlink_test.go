package main

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// inNS runs f with a socket in a namespace of its own.
func inNS(t *testing.T, f func(s *nfnetlink) error) {
	t.Helper()
	err := netlink.Do(nstest.New(t), func() error {
		s, err := openNFNetlink()
		if err != nil {
			return err
		}
		defer s.close()
		return f(s)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFloorsTableIsTakenAndReadBack(t *testing.T) {
	inNS(t, func(s *nfnetlink) error {
		size := tableSize{chains: 3, rules: 7, sets: 2}
		if err := s.commit(size.messages()...); err != nil {
			return err
		}
		rules := 0
		if err := s.dump(nftMessage(unix.NFT_MSG_GETRULE, 0), func([]byte) { rules++ }); err != nil {
			return err
		}
		names, err := s.read()
		slices.Sort(names)
		if rules != 7 || !slices.Equal(names, []string{"s0", "s1"}) {
			t.Errorf("%d rules, sets %q", rules, names)
		}
		return err
	})
}

func TestFloorsAnswers(t *testing.T) {
	inNS(t, func(s *nfnetlink) error {
		if err := s.commit(floorRules()...); err != nil {
			return err
		}
		rules := func() (n int) {
			if err := s.dump(nftMessage(unix.NFT_MSG_GETRULE, 0), func([]byte) { n++ }); err != nil {
				t.Error(err)
			}
			return n
		}
		before := rules()
		for _, pass := range []bool{false, true, false} {
			if err := s.answer(ruleKey, pass); err != nil {
				return err
			}
			want := before + 1
			if pass {
				want = before
			}
			if n := rules(); n != want {
				t.Errorf("%d rules after pass=%v, want %d", n, pass, want)
			}
		}
		for _, pass := range []bool{true, false, true} {
			if err := s.answer(setKey, pass); err != nil {
				t.Errorf("member, pass=%v: %v", pass, err)
			}
		}
		return nil
	})
}

func TestRefusalIsAnError(t *testing.T) {
	inNS(t, func(s *nfnetlink) error {
		err := s.commit(newTable(), elements(true, "none", netip.MustParseAddr("10.0.0.1")))
		if !errors.Is(err, unix.ENOENT) {
			t.Errorf("an element of a set that is not there: %v", err)
		}
		return nil
	})
}

func TestPodsOfAFloorAreWired(t *testing.T) {
	nstest.RequireRoot(t)
	host, err := newNS()
	if err != nil {
		t.Fatal(err)
	}
	defer host.close()
	pod, err := newNS()
	if err != nil {
		t.Fatal(err)
	}
	defer pod.close()
	m := &machine{netns: host}
	if err := bareWire(m, pod, "bare0", netip.MustParseAddr("10.64.0.9")); err != nil {
		t.Fatal(err)
	}
	h, err := pod.handle()
	if err != nil {
		t.Fatal(err)
	}
	routes, err := netlink.Dump(func() ([]vnl.Route, error) { return h.RouteList(nil, unix.AF_INET) })
	if err != nil || len(routes) != 2 {
		t.Errorf("the pod's routes: %v, %v", routes, err)
	}
	if err := bareUnwire(m, "bare0"); err != nil {
		t.Error(err)
	}
	if err := bareUnwire(m, "bare0"); err == nil {
		t.Error("a device that is not there was removed")
	}
}
