package nft

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/filter"
)

// image is what a table holds, in the kernel's terms, so far as two can be compared.
type image struct {
	exists bool
	flags  uint32 // of the table
	chains map[string]*chainImage
	sets   map[string]*setImage // and maps
}

type chainImage struct {
	base  string // hook, priority, type and policy; empty: none
	rules []string
}

type setImage struct {
	flags, keyType, keyLen uint32
	elements               map[string]string // key, its end and flags → chain
}

func newImage() *image {
	return &image{chains: map[string]*chainImage{}, sets: map[string]*setImage{}}
}

// differs names something in which the two differ; "" if they do not.
func (a *image) differs(b *image) string {
	if a.exists != b.exists || a.flags != b.flags {
		return "table " + tableName
	}
	if name, ok := odd(a.chains, b.chains, (*chainImage).equal); !ok {
		return "chain " + name
	}
	if name, ok := odd(a.sets, b.sets, (*setImage).equal); !ok {
		return "set " + name
	}
	return ""
}

// odd returns a key that only one map has or whose values differ, or true.
func odd[V any](a, b map[string]V, equal func(V, V) bool) (string, bool) {
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if v, ok := b[name]; !ok || !equal(a[name], v) {
			return name, false
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			return name, false
		}
	}
	return "", true
}

func (a *chainImage) equal(b *chainImage) bool {
	return a.base == b.base && slices.Equal(a.rules, b.rules)
}

func (a *setImage) equal(b *setImage) bool {
	return a.flags == b.flags && a.keyType == b.keyType && a.keyLen == b.keyLen && maps.Equal(a.elements, b.elements)
}

func baseString(hook uint32, priority int32, kind string, policy uint32) string {
	return fmt.Sprintf("%d/%d/%s/%d", hook, priority, kind, policy)
}

func elementKey(key, end []byte, flags uint32) string {
	return fmt.Sprintf("%s|%s|%d", key, end, flags)
}

// imageOf returns the image that the kernel must show of p.
func (e *encoder) imageOf(p *filter.Program) (*image, error) {
	im := newImage()
	im.exists = true
	for name, m := range p.Maps {
		e.maps[name] = m.Field
		s := setImageOf(e.vmap(name))
		for iface, chain := range m.Chains {
			s.put(jump(iface, chain))
		}
		im.sets[name] = s
	}
	for name, set := range p.Sets {
		s := setImageOf(e.set(name, set.Kind))
		for x := range set.Elements {
			for _, el := range elements(set.Kind, x) {
				s.put(el)
			}
		}
		im.sets[name] = s
	}
	for name, ch := range p.Chains {
		c, err := e.chainImageOf(name, ch)
		if err != nil {
			return nil, err
		}
		im.chains[name] = c
	}
	return im, nil
}

func (e *encoder) chainImageOf(name string, ch *filter.Chain) (*chainImage, error) {
	c := &chainImage{}
	if ch.Base != nil {
		var k nftables.Chain
		base(&k, ch.Base)
		c.base = baseString(uint32(*k.Hooknum), int32(*k.Priority), string(k.Type), uint32(*k.Policy))
	}
	for i := range ch.Rules {
		x, err := e.rule(&ch.Rules[i])
		if err != nil {
			return nil, fmt.Errorf("chain %s, rule %d: %w", name, i, err)
		}
		c.rules = append(c.rules, x.hash)
	}
	return c, nil
}

func setImageOf(s *nftables.Set) *setImage {
	im := &setImage{keyType: s.KeyType.GetNFTMagic(), keyLen: s.KeyType.Bytes, elements: map[string]string{}}
	for bit, on := range map[uint32]bool{
		unix.NFT_SET_INTERVAL: s.Interval, unix.NFT_SET_MAP: s.IsMap, nftables.NFT_SET_CONCAT: s.Concatenation,
	} {
		if on {
			im.flags |= bit
		}
	}
	return im
}

func (im *setImage) put(x nftables.SetElement) {
	var flags uint32
	if x.IntervalEnd {
		flags = unix.NFT_SET_ELEM_INTERVAL_END
	}
	chain := ""
	if x.VerdictData != nil {
		chain = x.VerdictData.Chain
	}
	im.elements[elementKey(x.Key, x.KeyEnd, flags)] = chain
}

// read returns the image of the kernel's table of a family.
func (s *socket) read(family byte) (*image, error) {
	for range 5 {
		im, err := s.readOnce(family)
		if !errors.Is(err, errInterrupted) && !errors.Is(err, unix.ENOENT) {
			return im, err
		}
	}
	return nil, errInterrupted
}

// readOnce fails with ENOENT if something vanishes meanwhile.
func (s *socket) readOnce(family byte) (*image, error) {
	im := newImage()
	table := []mdl.Attribute{{Type: 1, Data: []byte(tableName + "\x00")}} // 1: the table's name, in every request
	err := s.get(unix.NFT_MSG_GETTABLE, family, 0, table, im.table)
	if errors.Is(err, unix.ENOENT) {
		return im, nil
	}
	if err == nil {
		err = s.get(unix.NFT_MSG_GETCHAIN, family, mdl.Dump, table, im.chain)
	}
	if err == nil {
		err = s.get(unix.NFT_MSG_GETRULE, family, mdl.Dump, table, im.rule)
	}
	if err == nil {
		err = s.get(unix.NFT_MSG_GETSET, family, mdl.Dump, table, im.set)
	}
	for name, set := range im.sets {
		if err == nil {
			attrs := append(table[:1:1], mdl.Attribute{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(name + "\x00")})
			err = s.get(unix.NFT_MSG_GETSETELEM, family, mdl.Dump, attrs, set.list)
		}
	}
	return im, err
}

func (im *image) table(ad *mdl.AttributeDecoder) error {
	im.exists = true
	for ad.Next() {
		if ad.Type() == unix.NFTA_TABLE_FLAGS {
			im.flags = ad.Uint32()
		}
	}
	return nil
}

func (im *image) chain(ad *mdl.AttributeDecoder) error {
	var table, name, kind string
	var hook, policy uint32
	var priority int32
	isBase := false
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_CHAIN_TABLE:
			table = ad.String()
		case unix.NFTA_CHAIN_NAME:
			name = ad.String()
		case unix.NFTA_CHAIN_TYPE:
			kind = ad.String()
		case unix.NFTA_CHAIN_POLICY:
			policy = ad.Uint32()
		case unix.NFTA_CHAIN_HOOK:
			isBase = true
			ad.Nested(func(h *mdl.AttributeDecoder) error {
				for h.Next() {
					switch h.Type() {
					case unix.NFTA_HOOK_HOOKNUM:
						hook = h.Uint32()
					case unix.NFTA_HOOK_PRIORITY:
						priority = int32(h.Uint32())
					}
				}
				return nil
			})
		}
	}
	if table != tableName {
		return nil
	}
	c := &chainImage{}
	if isBase {
		c.base = baseString(hook, priority, kind, policy)
	}
	im.chains[name] = c
	return nil
}

func (im *image) rule(ad *mdl.AttributeDecoder) error {
	var table, chain, comment string
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_RULE_TABLE:
			table = ad.String()
		case unix.NFTA_RULE_CHAIN:
			chain = ad.String()
		case unix.NFTA_RULE_USERDATA:
			comment = commentOf(ad.Bytes())
		}
	}
	if c := im.chains[chain]; table == tableName && c != nil {
		hash, _ := strings.CutPrefix(comment, hashPrefix)
		c.rules = append(c.rules, hash)
	}
	return nil
}

// commentOf returns the comment in a rule's user data: type, length, value.
func commentOf(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		value := b[2 : 2+int(b[1])]
		if b[0] == 0 {
			return strings.TrimRight(string(value), "\x00")
		}
		b = b[2+len(value):]
	}
	return ""
}

func (im *image) set(ad *mdl.AttributeDecoder) error {
	var table, name string
	s := &setImage{elements: map[string]string{}}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_TABLE:
			table = ad.String()
		case unix.NFTA_SET_NAME:
			name = ad.String()
		case unix.NFTA_SET_FLAGS:
			s.flags = ad.Uint32()
		case unix.NFTA_SET_KEY_TYPE:
			s.keyType = ad.Uint32()
		case unix.NFTA_SET_KEY_LEN:
			s.keyLen = ad.Uint32()
		}
	}
	if table == tableName {
		im.sets[name] = s
	}
	return nil
}

// list takes in the elements of one message.
func (im *setImage) list(ad *mdl.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			ad.Nested(func(l *mdl.AttributeDecoder) error {
				for l.Next() {
					l.Nested(im.element)
				}
				return nil
			})
		}
	}
	return nil
}

func (im *setImage) element(ad *mdl.AttributeDecoder) error {
	var key, end []byte
	var flags uint32
	chain := ""
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			key = value(ad)
		case nftables.NFTA_SET_ELEM_KEY_END:
			end = value(ad)
		case unix.NFTA_SET_ELEM_FLAGS:
			flags = ad.Uint32()
		case unix.NFTA_SET_ELEM_DATA:
			chain = verdictChain(ad)
		}
	}
	im.elements[elementKey(key, end, flags)] = chain
	return nil
}

// value is the bytes of a data attribute.
func value(ad *mdl.AttributeDecoder) (out []byte) {
	ad.Nested(func(d *mdl.AttributeDecoder) error {
		for d.Next() {
			if d.Type() == unix.NFTA_DATA_VALUE {
				out = d.Bytes()
			}
		}
		return nil
	})
	return out
}

// verdictChain is the chain of a map element's jump; any other verdict differs from it.
func verdictChain(ad *mdl.AttributeDecoder) string {
	var code uint32
	var chain string
	ad.Nested(func(d *mdl.AttributeDecoder) error {
		for d.Next() {
			d.Nested(func(v *mdl.AttributeDecoder) error {
				for v.Next() {
					switch v.Type() {
					case unix.NFTA_VERDICT_CODE:
						code = v.Uint32()
					case unix.NFTA_VERDICT_CHAIN:
						chain = v.String()
					}
				}
				return nil
			})
		}
		return nil
	})
	if int32(code) != unix.NFT_JUMP {
		return fmt.Sprintf("verdict %d %s", int32(code), chain)
	}
	return chain
}
