package difftest

import (
	"context"
	"testing"

	"github.com/google/nftables"

	"github.com/calicogo/calico/dataplane"
)

// TestReplacementLetsNothingThrough sends packets that policy denies while the table is
// replaced whole, over and over. None may pass, for the earlier table stands until the
// new one does.
func TestReplacementLetsNothingThrough(t *testing.T) {
	w := newWorld(t)
	g := NewGen(1)
	s := dataplane.NewState()
	for i := range Pods {
		s.Endpoints[Iface(i)] = g.Endpoint(i)
		s.Endpoints[Iface(i)].Addrs = addrs(PodAddr(i, 4).String(), PodAddr(i, 6).String())
		s.Endpoints[Iface(i)].Ingress = nil
		s.Endpoints[Iface(i)].Profiles = nil
	}
	d := newDriver(t, w)
	d.Update(s.Delta())
	if err := d.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := meddle(w.node); err != nil {
				done <- err
				return
			}
			d.Resync()
			if err := d.Sync(context.Background()); err != nil {
				done <- err
				return
			}
		}
	}()
	for d.Stats().Replacements < 60 {
		packets := make([]dataplane.Packet, 400)
		for i := range packets {
			f := Of(g, dataplane.Families[:]...)
			packets[i] = dataplane.Packet{In: Uplink, Src: outside[f][0], Protocol: dataplane.UDP, SrcPort: uint16(1000 + i), DstPort: 80}
			g.toPod(&packets[i], f)
		}
		for i, seen := range w.send(packets) {
			if _, ok := seen.at["fwd"]; ok {
				t.Errorf("passed during a replacement: %+v", packets[i])
			}
		}
		if t.Failed() {
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// meddle adds a chain to our tables that leads nowhere.
func meddle(ns int) error {
	c, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		return err
	}
	for _, f := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		c.AddChain(&nftables.Chain{Name: "stray", Table: &nftables.Table{Name: "calico", Family: f}})
	}
	return c.Flush()
}
