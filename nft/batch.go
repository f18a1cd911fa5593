package nft

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/filter"
)

// TableName is the name of our table in both families.
const TableName = "calico"

const tableName = TableName

// batch gathers one transaction. The first error sticks.
type batch struct {
	enc    *encoder
	fresh  bool    // the table is new: nothing is in it
	ruled  bool    // rules change
	labels []label // of the messages, in order
	drift  *drift  // what else there is to mend; never nil
	setID  uint32
	msgs   []mdl.Message
	err    error

	standing []string // see filter.Changes.Standing
}

// label says what a message is about, for the error if the kernel refuses it.
type label struct {
	verb, kind, name string
	marks            []mark       // of elements: the program's sets that share the kernel's
	index            int          // of a rule
	rule             *filter.Rule // nil: of something else
}

func newBatch(enc *encoder) *batch { return &batch{enc: enc, drift: &drift{}} }

// put adds a message: of a kind, with flags, about the table and what attrs say.
func (b *batch) put(l label, kind int, flags mdl.HeaderFlags, attrs ...[]byte) {
	out := make([]byte, 0, 128)
	out = append(out, b.enc.afFamily(), unix.NFNETLINK_V0, 0, 0)
	out = appendAttr(out, unix.NFTA_TABLE_NAME, []byte(tableName+"\x00")) // the same number in all kinds
	for _, a := range attrs {
		out = append(out, a...)
	}
	b.labels = append(b.labels, l)
	b.msgs = append(b.msgs, mdl.Message{
		Header: mdl.Header{Type: mdl.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: mdl.Request | flags},
		Data:   out,
	})
}

func nameAttr(kind uint16, name string) []byte { return appendAttr(nil, kind, append([]byte(name), 0)) }

func (b *batch) addTable(verb string) {
	b.put(label{verb: verb, kind: "table", name: tableName}, unix.NFT_MSG_NEWTABLE, mdl.Create)
}

func (b *batch) deleteTable() {
	b.put(label{verb: "delete", kind: "table", name: tableName}, unix.NFT_MSG_DELTABLE, 0)
}

func (b *batch) addChain(verb, name string, x *filter.Base) {
	attrs := [][]byte{nameAttr(unix.NFTA_CHAIN_NAME, name)}
	if x != nil {
		k := baseOf(x)
		hook := append(appendAttr(nil, unix.NFTA_HOOK_HOOKNUM, be32(k.hook)), appendAttr(nil, unix.NFTA_HOOK_PRIORITY, be32(uint32(k.priority)))...)
		attrs = append(attrs, appendAttr(nil, unix.NLA_F_NESTED|unix.NFTA_CHAIN_HOOK, hook),
			appendAttr(nil, unix.NFTA_CHAIN_POLICY, be32(k.policy)), nameAttr(unix.NFTA_CHAIN_TYPE, k.kind))
	}
	b.put(label{verb: verb, kind: "chain", name: name}, unix.NFT_MSG_NEWCHAIN, mdl.Create, attrs...)
}

func (b *batch) emptyChain(name string) {
	b.put(label{verb: "empty", kind: "chain", name: name}, unix.NFT_MSG_DELRULE, 0, nameAttr(unix.NFTA_RULE_CHAIN, name))
}

func (b *batch) deleteChain(name string) {
	b.put(label{verb: "delete", kind: "chain", name: name}, unix.NFT_MSG_DELCHAIN, 0, nameAttr(unix.NFTA_CHAIN_NAME, name))
}

func (b *batch) emptySet(kind, name string) {
	b.put(label{verb: "empty", kind: kind, name: name}, unix.NFT_MSG_DELSETELEM, 0, nameAttr(unix.NFTA_SET_ELEM_LIST_SET, name))
}

func (b *batch) deleteSet(kind, name string) {
	b.put(label{verb: "delete", kind: kind, name: name}, unix.NFT_MSG_DELSET, 0, nameAttr(unix.NFTA_SET_NAME, name))
}

// addSet makes a set by the library, which knows how the nft tool likes to have them described.
func (b *batch) addSet(kind string, s *nftables.Set) {
	b.setID++
	s.ID = b.setID // of our own: the library's counter is not safe in parallel
	s.Table = &nftables.Table{Name: tableName, Family: nftables.TableFamily(b.enc.afFamily())}
	conn, err := nftables.New(nftables.WithTestDial(func(req []mdl.Message) ([]mdl.Message, error) {
		if len(req) > 2 {
			b.msgs = append(b.msgs, req[1:len(req)-1]...) // without begin and end, which are ours to send
		}
		return nil, unix.ENOBUFS // the one answer that ends Flush at once
	}))
	if err == nil {
		err = conn.AddSet(s, nil)
	}
	if err == nil {
		err = conn.Flush()
	}
	if err != nil && !errors.Is(err, unix.ENOBUFS) {
		b.fail(fmt.Errorf("encode: %s %s: %w", kind, s.Name, err))
	}
	b.labels = append(b.labels, label{verb: "add", kind: kind, name: s.Name})
}

func (b *batch) fail(err error) {
	if b.err == nil && err != nil {
		b.err = err
	}
}

// messages returns the encoded transaction.
func (b *batch) messages() ([]mdl.Message, error) {
	if b.err != nil {
		return nil, b.err
	}
	if len(b.msgs) != len(b.labels) {
		return nil, fmt.Errorf("encode: %d messages for %d objects", len(b.msgs), len(b.labels))
	}
	return b.msgs, nil
}

// mend adds what a program's changes cannot say. It goes last.
func (b *batch) mend() {
	for _, name := range sorted(b.drift.policy) {
		b.addChain("set policy of", name, b.drift.policy[name].Base)
	}
	for _, name := range sorted(b.drift.wipe) { // of sets that are shared: the others' went with their changes
		b.elements("remove from", "set", name, unix.NFT_MSG_DELSETELEM, func(l *elementList) {
			for i := range b.drift.wipe[name] {
				l.kernel(&b.drift.wipe[name][i])
			}
		})
	}
	for _, o := range b.drift.others {
		b.labels = append(b.labels, label{verb: "delete", kind: o.kind, name: o.name})
		b.msgs = append(b.msgs, o.message(b.enc.afFamily()))
	}
}

// wake makes the table's flags none, so that its chains are in force.
func (b *batch) wake() {
	b.put(label{verb: "wake", kind: "table", name: tableName}, unix.NFT_MSG_NEWTABLE, 0, appendAttr(nil, unix.NFTA_TABLE_FLAGS, make([]byte, 4)))
}

// clearTable removes the table and makes it anew, empty.
func (b *batch) clearTable() {
	b.fresh = true
	b.addTable("find")
	b.deleteTable()
	b.addTable("add")
	b.newShares()
}

// apply adds what makes the changes, in the order in which one thing needs another.
func (b *batch) apply(ch *filter.Changes) {
	b.ruled = b.ruled || len(ch.Chains)+len(ch.Maps) > 0
	b.standing = append(b.standing, ch.Standing()...)
	sets, vmaps, chains := sorted(ch.Sets), sorted(ch.Maps), sorted(ch.Chains)
	for _, name := range sets {
		b.newSet(name, ch.Sets[name])
	}
	for _, name := range vmaps {
		b.newMap(name, ch.Maps[name])
	}
	for _, name := range chains {
		b.newChain(name, ch.Chains[name])
	}
	for _, name := range sets {
		b.changeSet(name, ch.Sets[name])
	}
	for _, name := range vmaps {
		b.changeMap(name, ch.Maps[name])
	}
	b.changeShared(sets, ch)
	for _, name := range chains {
		b.rules(name, ch.Chains[name])
	}
	b.deleteSets(sets, vmaps, ch) // a map's elements hold chains
	for _, name := range chains {
		if ch.Chains[name] == nil {
			b.deleteChain(name)
		}
	}
}

func sorted[V any](m map[string]V) []string {
	if len(m) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(m))
}

func (b *batch) newSet(name string, sc *filter.SetChange) {
	if sc.New && !isShared(sc.Kind) {
		b.addSet("set", b.enc.set(name, sc.Kind))
	}
}

func (b *batch) newMap(name string, mc *filter.MapChange) {
	b.enc.maps[name] = mc.Field
	if mc.New {
		b.addSet("map", b.enc.vmap(name))
	}
}

// newChain makes the chain, or empties the one there is.
func (b *batch) newChain(name string, ch *filter.Chain) {
	if b.drift.base[name] {
		b.deleteChain(name)
	}
	if ch != nil {
		b.addChain("add", name, ch.Base)
	}
	if !b.fresh {
		b.emptyChain(name)
	}
}

func hooknum(h filter.Hook) uint32 {
	return map[filter.Hook]uint32{
		filter.Prerouting: unix.NF_INET_PRE_ROUTING, filter.Input: unix.NF_INET_LOCAL_IN, filter.Forward: unix.NF_INET_FORWARD,
		filter.Output: unix.NF_INET_LOCAL_OUT, filter.Postrouting: unix.NF_INET_POST_ROUTING,
	}[h]
}

func (b *batch) changeSet(name string, sc *filter.SetChange) {
	if sc.Gone || isShared(sc.Kind) {
		return
	}
	write := func(xs []filter.Element) func(*elementList) {
		return func(l *elementList) {
			for i := range xs {
				l.element(sc.Kind, &xs[i])
			}
		}
	}
	b.change("set", name, write(sc.Remove), write(sc.Add))
}

func (b *batch) changeMap(name string, mc *filter.MapChange) {
	if mc.Gone {
		return
	}
	write := func(m map[string]string) func(*elementList) {
		return func(l *elementList) {
			for _, iface := range sorted(m) {
				if len(iface) >= ifNameLen {
					b.fail(fmt.Errorf("map %s: %q is longer than a device's name can be", name, iface))
				}
				l.raw(ifName(iface), nil, 0, m[iface])
			}
		}
	}
	b.change("map", name, write(mc.Remove), write(mc.Add))
}

// change removes before it adds: a prefix may take the place of one that it overlaps.
func (b *batch) change(kind, name string, remove, add func(*elementList)) {
	if b.drift.empty[name] {
		b.emptySet(kind, name)
	}
	wipe := b.drift.wipe[name]
	delete(b.drift.empty, name) // the rest of the set's change may come with another batch
	delete(b.drift.wipe, name)
	b.elements("remove from", kind, name, unix.NFT_MSG_DELSETELEM, func(l *elementList) {
		for i := range wipe {
			l.kernel(&wipe[i])
		}
		remove(l)
	})
	b.elements("add to", kind, name, unix.NFT_MSG_NEWSETELEM, add)
}

// elements adds the messages of what write lists.
func (b *batch) elements(verb, kind, name string, message uint16, write func(*elementList)) {
	l := newElementList(message, b.enc.afFamily(), name)
	write(l)
	b.add(verb, kind, name, l)
}

func (b *batch) add(verb, kind, name string, l *elementList) {
	for i, m := range l.messages() {
		b.labels = append(b.labels, label{verb: verb, kind: kind, name: name, marks: l.marked[i]})
		b.msgs = append(b.msgs, m)
	}
}

func (b *batch) rules(name string, ch *filter.Chain) {
	if ch == nil {
		return
	}
	for i := range ch.Rules {
		x, err := b.enc.rule(&ch.Rules[i])
		if err != nil {
			b.fail(&filter.Refused{Object: name, Err: fmt.Errorf("chain %s, rule %d: %w", name, i, err)})
			return
		}
		b.labels = append(b.labels, label{verb: "add", kind: "rule", name: name, index: i, rule: &ch.Rules[i]})
		b.msgs = append(b.msgs, ruleMessage(b.enc.afFamily(), name, x))
	}
}

const hashPrefix = "cali:"

// ruleMessage is written here and not by the library, which takes five times as long: rules
// are most of a program.
func ruleMessage(family byte, chain string, x encoded) mdl.Message {
	comment := userdata.AppendString(nil, userdata.TypeComment, hashPrefix+x.hash)
	out := make([]byte, 0, 64+len(chain)+len(comment)+len(x.exprs))
	out = append(out, family, unix.NFNETLINK_V0, 0, 0)
	out = appendAttr(out, unix.NFTA_RULE_TABLE, []byte(tableName+"\x00"))
	out = appendAttr(out, unix.NFTA_RULE_CHAIN, append([]byte(chain), 0))
	out = appendAttr(out, unix.NLA_F_NESTED|unix.NFTA_RULE_EXPRESSIONS, x.exprs)
	out = appendAttr(out, unix.NFTA_RULE_USERDATA, comment)
	return mdl.Message{
		Header: mdl.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE, Flags: mdl.Request | mdl.Create | mdl.Append},
		Data:   out,
	}
}

func (b *batch) deleteSets(sets, vmaps []string, ch *filter.Changes) {
	for _, name := range sets {
		if sc := ch.Sets[name]; sc.Gone && !isShared(sc.Kind) {
			b.deleteSet("set", name)
		}
	}
	for _, name := range vmaps {
		if ch.Maps[name].Gone {
			b.deleteSet("map", name)
		}
	}
}

// explain says which object of the transaction the kernel refused.
func (b *batch) explain(err error) error {
	var r *refusal
	if !errors.As(err, &r) || r.index < 0 {
		return err
	}
	l := b.labels[r.index]
	if set := l.setAt(r.at - headerLen); set != "" {
		return &filter.Refused{Object: set, Err: fmt.Errorf("%s %s %s, in %s: %w", l.verb, l.kind, set, l.name, err)}
	}
	if l.rule == nil {
		return &filter.Refused{Object: l.name, Err: fmt.Errorf("%s %s %s: %w%s", l.verb, l.kind, l.name, err, lacks(r.errno, b.enc, l))}
	}
	return &filter.Refused{Object: l.name, Err: fmt.Errorf("add rule %d of chain %s: %w%s", l.index, l.name, err, lacks(r.errno, b.enc, l))}
}

// setAt is the program's set whose element is at that place of a message's body; "": it is not known.
func (l *label) setAt(at int) (set string) {
	if len(l.marks) == 1 {
		return l.marks[0].set
	}
	for _, m := range l.marks {
		if m.at <= at {
			set = m.set
		}
	}
	return set
}

// lacks names what the kernel may lack, where its error says that it does not know
// something.
func lacks(errno unix.Errno, enc *encoder, l label) string {
	if errno != unix.ENOENT && errno != unix.EOPNOTSUPP && errno != unix.EAFNOSUPPORT {
		return ""
	}
	if l.kind == "table" {
		return fmt.Sprintf("; the kernel may lack nftables for %v (CONFIG_NF_TABLES_IPV%d)", enc.family, enc.family)
	}
	mods := modules(l.rule, enc)
	if len(mods) == 0 {
		return ""
	}
	return fmt.Sprintf("; the kernel may lack a module that the rule needs: %v", mods)
}

// modules are those that a rule needs.
func modules(r *filter.Rule, enc *encoder) (mods []string) {
	if r == nil {
		return nil
	}
	_ = parts(r, func(part any) error {
		exprs, err := enc.exprs(part)
		for _, x := range exprs {
			if m := module(x, enc); m != "" && !slices.Contains(mods, m) {
				mods = append(mods, m)
			}
		}
		return err
	})
	return mods
}

// module is the kernel module that an expression needs beyond nf_tables itself.
func module(x expr.Any, enc *encoder) string {
	switch x.(type) {
	case *expr.Ct, *expr.Notrack:
		return "nft_ct"
	case *expr.Log:
		return "nft_log"
	case *expr.Fib:
		return fmt.Sprintf("nft_fib_ipv%d", enc.family)
	case *expr.Masq:
		return "nft_masq"
	case *expr.NAT:
		return "nft_nat"
	case *expr.Reject:
		return "nft_reject"
	}
	return ""
}
