package netlink

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConntrackZones holds that of flows which are alike but for their zone a change meets the one that is meant.
func TestConntrackZones(t *testing.T) {
	t.Parallel()
	c := openZones(t)
	c.create(t, 0)
	c.create(t, 5)
	flows := c.list(t)
	if len(flows) != 2 {
		t.Fatalf("%d flows, want one of each zone", len(flows))
	}
	five := flows[5]
	if err := c.Change([]FlowChange{{Flow: &five, Mark: 1, Mask: 1}}); err != nil {
		t.Fatal(err)
	}
	if now := c.list(t); now[0].Mark != 0 || now[5].Mark != 1 {
		t.Errorf("marks %d in zone 0 and %d in zone 5, want that of zone 5 set", now[0].Mark, now[5].Mark)
	}
	zero := flows[0]
	if err := c.Change([]FlowChange{{Flow: &zero, Delete: true}}); err != nil {
		t.Fatal(err)
	}
	if now := c.list(t); len(now) != 1 || now[5].Mark != 1 {
		t.Errorf("left after a deletion in zone 0: %+v, want that of zone 5", now)
	}
}

type zones struct{ *Conntrack }

func openZones(t *testing.T) zones {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test needs root")
	}
	var c *Conntrack
	err := Thread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		c, err = OpenConntrack(Current)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return zones{c}
}

// create has the kernel track a flow in the zone.
func (c zones) create(t *testing.T, zone uint16) {
	t.Helper()
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	tuple := func(src, dst netip.Addr, from, to uint16) []byte {
		ip := appendAttr(appendAttr(nil, ctaV4Src, src.AsSlice()), ctaV4Dst, dst.AsSlice())
		proto := appendAttr(nil, ctaProtoNum, []byte{unix.IPPROTO_UDP})
		proto = appendAttr(proto, ctaSrcPort, binary.BigEndian.AppendUint16(nil, from))
		proto = appendAttr(proto, ctaDstPort, binary.BigEndian.AppendUint16(nil, to))
		return appendAttr(appendAttr(nil, ctaTupleIP|unix.NLA_F_NESTED, ip), ctaTupleProto|unix.NLA_F_NESTED, proto)
	}
	b := appendAttr(nil, ctaTupleOrig|unix.NLA_F_NESTED, tuple(one, two, 1, 2))
	b = appendAttr(b, ctaTupleReply|unix.NLA_F_NESTED, tuple(two, one, 2, 1))
	b = appendAttr(b, 7, binary.BigEndian.AppendUint32(nil, 600)) // CTA_TIMEOUT
	b = appendAttr(b, ctaZone, binary.BigEndian.AppendUint16(nil, zone))
	if err := c.sock.send(ctNew, unix.AF_INET, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, b); err != nil {
		t.Fatal(err)
	}
	if err := c.sock.acknowledged(c.sock.seq, func(_ int, errno unix.Errno) error { return errno }); err != nil {
		t.Fatal(err)
	}
}

// list returns the flows by their zone.
func (c zones) list(t *testing.T) map[uint16]Flow {
	t.Helper()
	out := map[uint16]Flow{}
	err := c.Each(Query{}, func(f *Flow) error {
		zone := uint16(0)
		eachAttr(f.key, func(kind uint16, v []byte) {
			if kind == ctaZone {
				zone = binary.BigEndian.Uint16(v)
			}
		})
		out[zone] = f.Keep()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
