package difftest

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
)

// Groups of NFLOG.
const (
	ruleGroup  = 1 // of rules that log, as drivers are told
	otherGroup = 2 // as a state's settings may say
	logGroup   = 100
)

// Where packets are observed.
const (
	seenIn   = "in"  // as it arrived, before any other hook
	seenSent = "loc" // as the node sent it
	seenFwd  = "fwd" // past the rules of the hook forward
	seenInp  = "inp"
	seenOut  = "out"
	seenPost = "post"
)

// observers log what arrives, and what our chains at each hook have let pass. What arrives they
// give a random mark: of its bits, ours may take those of their mask, and must clear them first.
func (w *world) observers() {
	w.listen()
	c, err := nftables.New(nftables.WithNetNSFd(w.node))
	w.must(err)
	table := c.AddTable(&nftables.Table{Name: "observer", Family: nftables.TableFamilyINet})
	for _, x := range []struct {
		name string
		hook *nftables.ChainHook
		prio nftables.ChainPriority
	}{
		{seenIn, nftables.ChainHookPrerouting, -500},
		{seenSent, nftables.ChainHookOutput, -500},
		{seenFwd, nftables.ChainHookForward, 500},
		{seenInp, nftables.ChainHookInput, 500},
		{seenOut, nftables.ChainHookOutput, 500},
		{seenPost, nftables.ChainHookPostrouting, 500},
	} {
		chain := c.AddChain(&nftables.Chain{Name: x.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: x.hook, Priority: &x.prio})
		exprs := []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, // so that flows are tracked from now on
			&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: logGroup, Data: []byte(x.name)},
		}
		if x.prio < 0 {
			exprs = append([]expr.Any{
				&expr.Numgen{Register: 1, Modulus: 1<<32 - 1, Type: unix.NFT_NG_RANDOM},
				&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
			}, exprs...)
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}
	w.must(c.Flush())
	w.set(w.node, map[string]string{
		// The kernel takes the checksum of UDP-Lite to be UDP's (udplite_error), so that it calls
		// every such packet invalid.
		"netfilter/nf_conntrack_checksum":       "0",
		"netfilter/nf_conntrack_tcp_be_liberal": "1", // flows that are made have no windows
	})
}

// listen binds to the log groups, the observers' and that of Log rules; see
// linux/netfilter/nfnetlink_log.h.
func (w *world) listen() {
	var err error
	w.log, err = mdl.Dial(unix.NETLINK_NETFILTER, &mdl.Config{NetNS: w.node})
	w.must(err)
	w.t.Cleanup(func() { w.log.Close() })
	w.must(w.log.SetReadBuffer(8 << 20))
	for _, attr := range []mdl.Attribute{
		{Type: 1, Data: []byte{1}},                             // command: bind
		{Type: 2, Data: []byte{0, 0, 0xff, 0xff, 2, 0}},        // mode: copy the packet
		{Type: 5, Data: binary.BigEndian.AppendUint32(nil, 1)}, // hand over each at once
	} {
		body, err := mdl.MarshalAttributes([]mdl.Attribute{attr})
		w.must(err)
		for _, group := range []byte{logGroup, ruleGroup, otherGroup} {
			_, err = w.log.Execute(mdl.Message{
				Header: mdl.Header{Type: unix.NFNL_SUBSYS_ULOG<<8 | 1, Flags: mdl.Request | mdl.Acknowledge},
				Data:   append([]byte{0, 0, 0, group}, body...),
			})
			w.must(err)
		}
	}
}

// sight is what was seen of one packet.
type sight struct {
	at   map[string]glimpse // the first, by place
	logs []logged           // by rules of ours
	told string             // how its sender was told that it was refused: "reset", "icmp"; empty: it was not
}

type logged struct {
	group  uint16
	prefix string
}

type glimpse struct {
	src  netip.Addr
	mark uint32
}

// watch collects what is seen of n packets, of which the first has that id, until the marker is.
func (w *world) watch(first uint32, n int) ([]sight, error) {
	sights := make([]sight, n)
	for i := range sights {
		sights[i].at = map[string]glimpse{}
	}
	// The marker is never lost; a hung test is.
	if err := w.log.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	for {
		msgs, err := w.log.Receive()
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			x, err := record(m)
			if err != nil {
				return nil, err
			}
			switch i := int(x.id) - int(first); {
			case i == n && x.reply == "":
				return sights, nil
			case i >= 0 && i < n:
				sights[i].add(x)
			}
		}
	}
}

func (s *sight) add(x recorded) {
	switch {
	case x.group != logGroup:
		s.logs = append(s.logs, logged{x.group, x.prefix})
	case x.reply == "":
		if _, ok := s.at[x.prefix]; !ok {
			s.at[x.prefix] = x.glimpse
		}
	case x.prefix == seenPost:
		s.told = x.reply
	}
}

// recorded is one message of NFLOG.
type recorded struct {
	glimpse
	group  uint16
	prefix string
	id     uint32
	reply  string // what it says of the packet with that id; empty: it is that packet
}

func record(m mdl.Message) (x recorded, err error) {
	if m.Header.Type != unix.NFNL_SUBSYS_ULOG<<8 {
		return x, nil
	}
	x.group = binary.BigEndian.Uint16(m.Data[2:])
	ad, err := mdl.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return x, err
	}
	for ad.Next() {
		switch b := ad.Bytes(); ad.Type() {
		case 2: // NFULA_MARK
			x.mark = binary.BigEndian.Uint32(b)
		case 10: // NFULA_PREFIX
			x.prefix = ad.String()
		case 9: // NFULA_PAYLOAD
			if x.reply, x.id = replyOf(b); x.reply == "" {
				x.id, x.src = idOf(b)
			}
		}
	}
	return x, ad.Err()
}

// pass is the place where a packet is seen that passes the rules.
func pass(p *dataplane.Packet) string {
	switch {
	case p.In == "":
		return seenOut
	case p.Out == "":
		return seenInp
	}
	return seenFwd
}
