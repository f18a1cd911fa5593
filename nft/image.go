package nft

import (
	"errors"
	"strings"

	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// image is what a table holds in the kernel, so far as it can be compared, but for the
// elements of its sets, which are compared as they are read.
type image struct {
	exists bool
	flags  uint32 // of the table
	chains map[string]*chainImage
	sets   map[string]*setImage // and maps
	others []other
	looked map[setNumber]bool // the shared sets that rules ask; nil: not known
}

type chainImage struct {
	base  baseImage
	rules []string // see ruleImage
}

// baseImage is where packets enter a chain; the zero value: nowhere.
type baseImage struct {
	isBase   bool
	hook     uint32
	priority int32
	kind     string
	policy   uint32
}

type setImage struct{ flags, keyType, keyLen uint32 }

// other is an object that no program has: a flow table, or a named counter, quota and such.
type other struct {
	kind string
	del  uint16 // the message that deletes it
	name string
	typ  []byte // of an object
}

// What the library has no names for (linux/netfilter/nf_tables.h).
const (
	chainBinding = 4  // a chain's flag: it belongs to a rule
	chainFlags   = 10 // the attribute of those
)

func newImage() *image {
	return &image{chains: map[string]*chainImage{}, sets: map[string]*setImage{}, looked: map[setNumber]bool{}}
}

// ruleImage is what is compared of a rule: its hash, and the chains that it jumps to, for
// these can be given other names.
func ruleImage(hash, target string) string { return hash + ">" + target }

// tableAttr names our table; it is the first attribute of every request.
func tableAttr() mdl.Attribute { return mdl.Attribute{Type: 1, Data: []byte(tableName + "\x00")} }

// readTable returns the image of the kernel's table of a family. It fails with ENOENT if something
// vanishes meanwhile, and with errInterrupted, but for the whole of what it read, if
// others have changed any table.
func (s *socket) readTable(family byte) (*image, error) {
	im := newImage()
	err := s.get(unix.NFT_MSG_GETTABLE, family, 0, []mdl.Attribute{tableAttr()}, im.table)
	if errors.Is(err, unix.ENOENT) {
		return im, nil
	}
	if err != nil {
		return nil, err
	}
	interrupted := false
	for _, q := range []struct {
		kind uint16
		f    func([]byte)
	}{
		{unix.NFT_MSG_GETCHAIN, im.chain}, {unix.NFT_MSG_GETRULE, im.rule}, {unix.NFT_MSG_GETSET, im.set},
		{unix.NFT_MSG_GETOBJ, im.object}, {unix.NFT_MSG_GETFLOWTABLE, im.flowtable},
	} {
		err := s.get(q.kind, family, mdl.Dump, []mdl.Attribute{tableAttr()}, q.f)
		if errors.Is(err, errInterrupted) {
			interrupted = true
		} else if err != nil {
			return nil, err
		}
	}
	if interrupted {
		im.looked = nil // of rules some may be missing
		return im, errInterrupted
	}
	return im, nil
}

// reading is a readTable that goes on beside other work.
type reading struct {
	done chan struct{}
	im   *image
	err  error
}

// startReading begins to read a table. The socket is the reading's until wait returns.
func (s *socket) startReading(family byte) *reading {
	r := &reading{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.im, r.err = s.readTable(family)
	}()
	return r
}

func (r *reading) wait() (*image, error) {
	<-r.done
	return r.im, r.err
}

func (im *image) table(b []byte) {
	im.exists = true
	im.flags = number(attribute(b, unix.NFTA_TABLE_FLAGS))
}

// ours tells whether an object, whose first attribute is its table, is in ours.
func ours(b []byte) bool { return text(attribute(b, 1)) == tableName }

func (im *image) chain(b []byte) {
	var name string
	var flags uint32
	c := &chainImage{}
	for kind, v := range attributes(b) {
		switch kind {
		case unix.NFTA_CHAIN_NAME:
			name = text(v)
		case unix.NFTA_CHAIN_TYPE:
			c.base.kind = text(v)
		case unix.NFTA_CHAIN_POLICY:
			c.base.policy = number(v)
		case unix.NFTA_CHAIN_HOOK:
			c.base.isBase = true
			c.base.hook = number(attribute(v, unix.NFTA_HOOK_HOOKNUM))
			c.base.priority = int32(number(attribute(v, unix.NFTA_HOOK_PRIORITY)))
		case chainFlags:
			flags = number(v)
		}
	}
	if ours(b) && flags&chainBinding == 0 {
		im.chains[name] = c
	}
}

func (im *image) rule(b []byte) {
	var hash, target string
	var c *chainImage
	for kind, v := range attributes(b) {
		switch kind {
		case unix.NFTA_RULE_CHAIN:
			c = im.chains[text(v)]
		case unix.NFTA_RULE_EXPRESSIONS:
			target = im.immediates(v)
		case unix.NFTA_RULE_USERDATA:
			hash, _ = strings.CutPrefix(commentOf(v), hashPrefix)
		}
	}
	if c != nil && ours(b) {
		c.rules = append(c.rules, ruleImage(hash, target))
	}
}

// immediates names the chains that a rule's expressions lead to, and notes the shared sets that they ask.
func (im *image) immediates(exprs []byte) (targets string) {
	for _, x := range attributes(exprs) {
		if text(attribute(x, unix.NFTA_EXPR_NAME)) != "immediate" {
			continue
		}
		data := attribute(attribute(x, unix.NFTA_EXPR_DATA), unix.NFTA_IMMEDIATE_DATA)
		targets += text(attribute(attribute(data, unix.NFTA_DATA_VERDICT), unix.NFTA_VERDICT_CHAIN))
		if n := attribute(data, unix.NFTA_DATA_VALUE); len(n) == len(setNumber{}) {
			im.looked[setNumber(n)] = true
		}
	}
	return targets
}

// unasked tells whether no rule is known to ask a shared set: it can be filled before the rules come that do,
// and opens nothing.
func (im *image) unasked(n setNumber) bool { return im.looked != nil && !im.looked[n] }

// commentOf returns the comment in a rule's user data: type, length, value.
func commentOf(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		value := b[2 : 2+int(b[1])]
		if b[0] == 0 {
			return text(value)
		}
		b = b[2+len(value):]
	}
	return ""
}

func (im *image) set(b []byte) {
	var name string
	s := &setImage{}
	for kind, v := range attributes(b) {
		switch kind {
		case unix.NFTA_SET_NAME:
			name = text(v)
		case unix.NFTA_SET_FLAGS:
			s.flags = number(v)
		case unix.NFTA_SET_KEY_TYPE:
			s.keyType = number(v)
		case unix.NFTA_SET_KEY_LEN:
			s.keyLen = number(v)
		}
	}
	if ours(b) && s.flags&unix.NFT_SET_ANONYMOUS == 0 { // such a one goes with its rule
		im.sets[name] = s
	}
}

func (im *image) object(b []byte) {
	if ours(b) {
		typ := append([]byte(nil), attribute(b, unix.NFTA_OBJ_TYPE)...)
		im.others = append(im.others, other{"object", unix.NFT_MSG_DELOBJ, text(attribute(b, unix.NFTA_OBJ_NAME)), typ})
	}
}

func (im *image) flowtable(b []byte) {
	if ours(b) {
		im.others = append(im.others, other{"flowtable", unix.NFT_MSG_DELFLOWTABLE, text(attribute(b, 2)), nil})
	}
}

// message deletes o.
func (o *other) message(family byte) mdl.Message {
	out := []byte{family, unix.NFNETLINK_V0, 0, 0}
	out = appendAttr(out, 1, []byte(tableName+"\x00"))
	out = appendAttr(out, 2, append([]byte(o.name), 0))
	if o.typ != nil {
		out = appendAttr(out, unix.NFTA_OBJ_TYPE, o.typ)
	}
	return mdl.Message{Header: mdl.Header{Type: mdl.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | o.del), Flags: mdl.Request}, Data: out}
}
