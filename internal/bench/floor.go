package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/calicogo/calico/netlink"
)

// Keys that the floor's process watches. The first byte of the value says what is to be:
// yes or no.
const (
	ruleKey = "/floor/rule" // yes: packets to the pod pass
	setKey  = "/floor/set"  // yes: those from the member pass to the pod of the set
	yes, no = 'y', 'n'
)

var (
	floorPod    = netip.MustParseAddr("10.64.0.1")
	floorSetPod = netip.MustParseAddr("10.64.0.2")
	floorClient = netip.MustParseAddr("10.64.0.3")
	member      = netip.MustParseAddr("10.66.255.1") // a pod of another node, whose packets come from outside
)

// floorProcess starts the process that answers events of etcd with bare netlink.
func (b *bench) floorProcess(s *server, m *machine) {
	cmd := exec.Command("/bin/bench", "floor", s.endpoint)
	cmd.Stderr = os.Stderr
	ready := got(cmd.StdoutPipe())
	must(netlink.Do(int(m.Fd()), cmd.Start))
	b.cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		must(fmt.Errorf("the floor's process did not start: %w", err))
	}
}

// serveFloor is the process.
func serveFloor(args []string) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: args[:1], Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	s, err := openNFNetlink()
	if err != nil {
		return err
	}
	if err := s.commit(floorRules()...); err != nil {
		return err
	}
	w := c.Watch(context.Background(), "/floor/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	for r := range w {
		if r.Created {
			os.Stdout.Write([]byte{1})
		}
		for _, e := range r.Events {
			if err := s.answer(string(e.Kv.Key), e.Kv.Value[0] == yes); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("the watch ended")
}

// floorRules are the floor's table: a chain to which the rule comes, and one with a rule that
// lets only members through to the pod of the set.
func floorRules() []message {
	return []message{
		newTable(), forwardChain("forward"), forwardChain("deny"), newSet("members", 1),
		newRule("forward", address4(true), equals(floorSetPod), address4(false), notIn("members"), drop()),
	}
}

// answer is one transaction: a rule of a chain of its own, or an element.
func (s *nfnetlink) answer(key string, pass bool) error {
	switch {
	case key == setKey:
		return s.commit(elements(pass, "members", member))
	case key == ruleKey && pass:
		return s.commit(emptyChain("deny"))
	case key == ruleKey:
		return s.commit(newRule("deny", address4(true), equals(floorPod), drop()))
	}
	return nil
}
