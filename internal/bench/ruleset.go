package main

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// ruleset is a family's table as the kernel tells it, in the kernel's own bytes, so that the same
// objects can be made again by a bare batch.
type ruleset struct {
	family byte
	table  []byte              // of NEWTABLE
	chains []object            // in the kernel's order
	rules  map[string][][]byte // of a chain, in order
	sets   []object            // and maps
	elems  map[string][][]byte // of a set: single elements
}

// object is the body of the message that makes one.
type object struct {
	name string
	body []byte
}

// ours is the name of the table that drivers write.
const ours = "calico"

var inOurs = attr(unix.NFTA_RULE_TABLE, text(ours)) // the same number in all kinds

// readRuleset reads a family's table, in the socket's namespace.
func (s *nfnetlink) readRuleset(family byte) (*ruleset, error) {
	r := &ruleset{family: family, rules: map[string][][]byte{}, elems: map[string][][]byte{}}
	r.table = attr(unix.NFTA_TABLE_NAME, text(ours))
	for _, q := range []struct {
		kind uint16
		f    func([]byte)
	}{
		{unix.NFT_MSG_GETCHAIN, r.chain}, {unix.NFT_MSG_GETRULE, r.rule}, {unix.NFT_MSG_GETSET, r.set},
	} {
		if err := s.dump(r.message(q.kind, 0, inOurs), q.f); err != nil {
			return nil, err
		}
	}
	for _, set := range r.sets {
		ask := r.message(unix.NFT_MSG_GETSETELEM, 0, inOurs, attr(unix.NFTA_SET_ELEM_LIST_SET, text(set.name)))
		if err := s.dump(ask, func(b []byte) { r.elements(set.name, b) }); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *ruleset) message(kind, flags uint16, attrs ...[]byte) message {
	m := nftMessage(kind, flags, attrs...)
	m.body[0] = r.family
	return m
}

// each calls f with every attribute of b: its kind, its value, and the whole.
func each(b []byte, f func(kind uint16, value, whole []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		end := min(len(b), (n+3)&^3)
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n], b[:end])
		b = b[end:]
	}
}

// pick returns the attributes of those kinds, and the text of the one that is the name.
func pick(b []byte, name uint16, kinds ...uint16) (o object) {
	each(b, func(kind uint16, value, whole []byte) {
		if kind == name {
			o.name = string(bytes.TrimRight(value, "\x00"))
		}
		if kind == name || slices.Contains(kinds, kind) {
			o.body = append(o.body, whole...)
		}
	})
	return o
}

func (r *ruleset) chain(b []byte) {
	r.chains = append(r.chains, pick(b, unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY, unix.NFTA_CHAIN_TYPE))
}

func (r *ruleset) rule(b []byte) {
	o := pick(b, unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_TABLE, unix.NFTA_RULE_EXPRESSIONS, unix.NFTA_RULE_USERDATA)
	r.rules[o.name] = append(r.rules[o.name], o.body)
}

func (r *ruleset) set(b []byte) {
	r.sets = append(r.sets, pick(b, unix.NFTA_SET_NAME, unix.NFTA_SET_TABLE, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN,
		unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_DESC, unix.NFTA_SET_USERDATA))
}

func (r *ruleset) elements(set string, b []byte) {
	each(b, func(kind uint16, list, _ []byte) {
		if kind == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			each(list, func(_ uint16, _, whole []byte) { r.elems[set] = append(r.elems[set], slices.Clone(whole)) })
		}
	})
}

// whole is the batch that makes everything.
func (r *ruleset) whole() []message {
	ms := []message{r.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, r.table)}
	for i, s := range r.sets {
		ms = append(ms, r.message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.body, attr(unix.NFTA_SET_ID, be32(i+1))))
	}
	for _, c := range r.chains {
		ms = append(ms, r.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, c.body))
	}
	for _, s := range r.sets {
		ms = append(ms, r.change(unix.NFT_MSG_NEWSETELEM, s.name, r.elems[s.name])...)
	}
	for _, c := range r.chains {
		ms = append(ms, r.append(c.name)...)
	}
	return ms
}

func (r *ruleset) append(chain string) (ms []message) {
	for _, body := range r.rules[chain] {
		ms = append(ms, r.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, body))
	}
	return ms
}

// change adds elements to a set, or removes them.
func (r *ruleset) change(kind uint16, set string, elems [][]byte) (ms []message) {
	const most = 48 << 10 // bytes of a message: an attribute's length has 16 bits
	for len(elems) > 0 {
		n, size := 0, 0
		for n < len(elems) && size < most {
			size += len(elems[n])
			n++
		}
		ms = append(ms, r.message(kind, unix.NLM_F_CREATE, inOurs, attr(unix.NFTA_SET_ELEM_LIST_SET, text(set)), nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, elems[:n]...)))
		elems = elems[n:]
	}
	return ms
}

// to is the batch that makes q of r, whose sets are the same ones: chains that differ are
// emptied and filled, elements come and go.
func (r *ruleset) to(q *ruleset) (ms []message) {
	have, want := names(r.chains), names(q.chains)
	for _, c := range q.chains {
		if !have[c.name] {
			ms = append(ms, r.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, c.body))
		}
	}
	for _, c := range q.chains {
		if slices.EqualFunc(r.rules[c.name], q.rules[c.name], bytes.Equal) {
			continue
		}
		if have[c.name] {
			ms = append(ms, r.emptyChain(c.name))
		}
		ms = append(ms, q.append(c.name)...)
	}
	for _, s := range r.sets {
		ms = append(ms, r.change(unix.NFT_MSG_DELSETELEM, s.name, lacking(r.elems[s.name], q.elems[s.name]))...)
		ms = append(ms, r.change(unix.NFT_MSG_NEWSETELEM, s.name, lacking(q.elems[s.name], r.elems[s.name]))...)
	}
	for _, c := range r.chains {
		if !want[c.name] {
			ms = append(ms, r.emptyChain(c.name))
		}
	}
	for _, c := range r.chains {
		if !want[c.name] {
			ms = append(ms, r.message(unix.NFT_MSG_DELCHAIN, 0, inOurs, attr(unix.NFTA_CHAIN_NAME, text(c.name))))
		}
	}
	return ms
}

func (r *ruleset) emptyChain(name string) message {
	return r.message(unix.NFT_MSG_DELRULE, 0, inOurs, attr(unix.NFTA_RULE_CHAIN, text(name)))
}

func names(all []object) map[string]bool {
	out := map[string]bool{}
	for _, o := range all {
		out[o.name] = true
	}
	return out
}

// lacking returns what is in a and not in b.
func lacking(a, b [][]byte) (out [][]byte) {
	have := make(map[string]bool, len(b))
	for _, x := range b {
		have[string(x)] = true
	}
	for _, x := range a {
		if !have[string(x)] {
			out = append(out, x)
		}
	}
	return out
}
