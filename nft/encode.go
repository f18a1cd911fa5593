package nft

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// Registers. A field takes as many of 4 bytes as it needs; 1 names the first four.
const (
	reg1       = unix.NFT_REG_1
	firstReg32 = unix.NFT_REG32_00
)

// encoder makes rules of one family.
type encoder struct {
	family dataplane.Family
	group  uint16                  // of NFLOG; 0: the kernel's log
	maps   map[string]filter.Field // the keys of the program's maps
	parts  map[any][]byte          // of rules, encoded: most rules are made of a few
	buf    []byte                  // of the rule last encoded
}

func newEncoder(f dataplane.Family, group uint16) *encoder {
	return &encoder{family: f, group: group, maps: map[string]filter.Field{}, parts: map[any][]byte{}}
}

// afFamily is the family as netfilter's protocol number.
func (e *encoder) afFamily() byte {
	if e.family == dataplane.IPv4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// encoded is a rule in the kernel's terms. It is valid until the next is made.
type encoded struct {
	exprs []byte // a list of expressions, as attributes
	hash  string // of exprs, in 16 letters
}

// verdict is the part of a rule that says where the packet goes on.
type verdict struct {
	filter.Verdict
	target string
}

// loadAt is the part of a rule that loads a field after so many times 4 bytes.
type loadAt struct {
	field filter.Field
	at    int
}

// parts calls f with each part of a rule: a match, an action, or a verdict.
func parts(r *filter.Rule, f func(any) error) error {
	for i := range r.Match {
		if err := f(r.Match[i]); err != nil {
			return err
		}
	}
	for _, a := range r.Actions {
		if err := f(a); err != nil {
			return err
		}
	}
	return f(verdict{r.Verdict, r.Target})
}

func (e *encoder) rule(r *filter.Rule) (encoded, error) {
	out := encoded{exprs: e.buf[:0]}
	err := parts(r, func(x any) (err error) {
		out.exprs, err = e.appendPart(out.exprs, x)
		return err
	})
	e.buf = out.exprs
	sum := sha256.Sum256(out.exprs)
	out.hash = base64.RawURLEncoding.EncodeToString(sum[:12])
	return out, err
}

// maxParts bounds what is remembered.
const maxParts = 1 << 16

// appendPart appends the expressions of a part. Those that name a set or a chain are as many as
// these, and not kept.
func (e *encoder) appendPart(out []byte, x any) ([]byte, error) {
	switch x := x.(type) {
	case filter.Match:
		if ref, ok := x.Value.(filter.SetRef); ok && isShared(ref.Kind) {
			return e.appendLookup(out, x, ref)
		}
	case verdict:
		if x.Verdict == filter.Jump || x.Verdict == filter.Goto {
			return appendJump(out, x), nil
		}
	}
	b, err := e.part(x)
	return append(out, b...), err
}

// part returns the expressions of a part of a rule.
func (e *encoder) part(x any) ([]byte, error) {
	if b, ok := e.parts[x]; ok {
		return b, nil
	}
	exprs, err := e.exprs(x)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, x := range exprs {
		b, err := expr.Marshal(e.afFamily(), x)
		if err != nil {
			return nil, err
		}
		out = appendAttr(out, unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, b)
	}
	if len(e.parts) >= maxParts {
		clear(e.parts)
	}
	e.parts[x] = out
	return out, nil
}

func (e *encoder) exprs(x any) ([]expr.Any, error) {
	switch x := x.(type) {
	case filter.Match:
		return e.match(x)
	case filter.Action:
		return e.action(x)
	case verdict:
		return e.verdict(x)
	case loadAt:
		return e.keyAt(x.field, uint32(x.at))
	}
	return nil, fmt.Errorf("no encoding of %T", x)
}

// appendAttr appends a netlink attribute.
func appendAttr(out []byte, kind uint16, data []byte) []byte {
	out = binary.NativeEndian.AppendUint16(out, uint16(4+len(data)))
	out = binary.NativeEndian.AppendUint16(out, kind)
	return pad(append(out, data...))
}

// pad fills up to a multiple of 4, as every netlink object is.
func pad(out []byte) []byte {
	for len(out)%4 != 0 {
		out = append(out, 0)
	}
	return out
}

func (e *encoder) match(m filter.Match) ([]expr.Any, error) {
	cmp := expr.CmpOpEq
	if m.Not {
		cmp = expr.CmpOpNeq
	}
	switch v := m.Value.(type) {
	case filter.SetRef:
		x, err := e.key(m.Field)
		return append(x, &expr.Lookup{SourceRegister: reg1, SetName: v.Name, Invert: m.Not}), err
	case filter.Prefix:
		return e.prefix(m.Field, v.Prefix, cmp)
	case filter.Number:
		return []expr.Any{loadProtocol(reg1), compare(cmp, byte(v))}, nil
	case filter.Ports:
		x, err := e.key(m.Field)
		if v.Min == v.Max {
			return append(x, compare(cmp, be16(v.Min)...)), err
		}
		return append(x, &expr.Range{Op: cmp, Register: reg1, FromData: be16(v.Min), ToData: be16(v.Max)}), err
	case filter.Type:
		return icmp(v, cmp), nil
	case filter.Iface:
		return e.iface(m.Field, v, cmp)
	case filter.Bits:
		load := expr.Any(&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1})
		if m.Field == filter.CtMark {
			load = &expr.Ct{Key: expr.CtKeyMARK, Register: reg1}
		}
		return append([]expr.Any{load}, masked(v.Mask, v.Value, cmp)...), nil
	case filter.Conns:
		load := &expr.Ct{Key: expr.CtKeySTATE, Register: reg1}
		if m.Not {
			return append([]expr.Any{load}, masked(conns(v), 0, expr.CmpOpEq)...), nil
		}
		return append([]expr.Any{load}, masked(conns(v), 0, expr.CmpOpNeq)...), nil
	case nil:
		if m.Field == filter.SrcLocal {
			fib := &expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagSADDR: true}
			return []expr.Any{fib, compare(cmp, ne32(unix.RTN_LOCAL)...)}, nil
		}
	}
	return nil, fmt.Errorf("no encoding of a match of field %d with %T", m.Field, m.Value)
}

// appendLookup appends a lookup of the field after the number of a set that shares the kernel's.
func (e *encoder) appendLookup(out []byte, m filter.Match, set filter.SetRef) ([]byte, error) {
	n := numberOf(set.Name)
	load, err := e.part(loadAt{m.Field, len(n) / 4})
	out = appendExpr(out, "immediate", func(out []byte) []byte {
		out = appendAttr(out, unix.NFTA_IMMEDIATE_DREG, be32(reg1))
		return appendAttr(out, unix.NLA_F_NESTED|unix.NFTA_IMMEDIATE_DATA, appendAttr(nil, unix.NFTA_DATA_VALUE, n[:]))
	})
	out = append(out, load...)
	return appendExpr(out, "lookup", func(out []byte) []byte {
		out = appendAttr(out, unix.NFTA_LOOKUP_SREG, be32(reg1))
		if m.Not {
			out = appendAttr(out, unix.NFTA_LOOKUP_FLAGS, be32(unix.NFT_LOOKUP_F_INV))
		}
		return appendAttr(out, unix.NFTA_LOOKUP_SET, []byte(shareOf(set.Kind, n).name()+"\x00"))
	}), err
}

// appendJump appends a jump to a chain, or that without return.
func appendJump(out []byte, v verdict) []byte {
	code := int32(unix.NFT_JUMP)
	if v.Verdict == filter.Goto {
		code = unix.NFT_GOTO
	}
	return appendExpr(out, "immediate", func(out []byte) []byte {
		to := appendAttr(nil, unix.NFTA_VERDICT_CODE, be32(uint32(code)))
		to = appendAttr(to, unix.NFTA_VERDICT_CHAIN, []byte(v.target+"\x00"))
		out = appendAttr(out, unix.NFTA_IMMEDIATE_DREG, be32(unix.NFT_REG_VERDICT))
		to = appendAttr(nil, unix.NLA_F_NESTED|unix.NFTA_DATA_VERDICT, to)
		return appendAttr(out, unix.NLA_F_NESTED|unix.NFTA_IMMEDIATE_DATA, to)
	})
}

// appendExpr appends an expression, whose attributes data appends.
func appendExpr(out []byte, name string, data func([]byte) []byte) []byte {
	start := len(out)
	out = appendAttr(out, unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, nil)
	out = appendAttr(out, unix.NFTA_EXPR_NAME, []byte(name+"\x00"))
	inner := len(out)
	out = data(appendAttr(out, unix.NLA_F_NESTED|unix.NFTA_EXPR_DATA, nil))
	binary.NativeEndian.PutUint16(out[inner:], uint16(len(out)-inner))
	binary.NativeEndian.PutUint16(out[start:], uint16(len(out)-start))
	return out
}

func compare(op expr.CmpOp, data ...byte) expr.Any {
	return &expr.Cmp{Op: op, Register: reg1, Data: data}
}

// masked compares the bits of register 1 within mask.
func masked(mask, value uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: ne32(mask), Xor: ne32(0)},
		compare(op, ne32(value)...),
	}
}

// conns is the kernel's bits of ct state.
func conns(v filter.Conns) (bits uint32) {
	kernel := map[dataplane.Conn]uint32{
		dataplane.ConnNew:         expr.CtStateBitNEW,
		dataplane.ConnEstablished: expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED,
		dataplane.ConnInvalid:     expr.CtStateBitINVALID,
		dataplane.ConnUntracked:   expr.CtStateBitUNTRACKED,
	}
	for c, b := range kernel {
		if v&(1<<c) != 0 {
			bits |= b
		}
	}
	return bits
}

// key loads the field's value as sets have it, from register 1 on.
func (e *encoder) key(f filter.Field) ([]expr.Any, error) { return e.keyAt(f, 0) }

// keyAt loads an address, or what begins with one, after so many times 4 bytes; else a
// field from register 1 on.
func (e *encoder) keyAt(f filter.Field, at uint32) ([]expr.Any, error) {
	first := uint32(firstReg32) + at
	next := first + uint32(e.family.Bits()/32) // the register after the address
	switch f {
	case filter.SrcAddr, filter.DstAddr:
		return []expr.Any{e.loadAddr(f, first, e.family.Bits()/8)}, nil
	case filter.SrcPort:
		return []expr.Any{loadPort(0, reg1)}, nil
	case filter.DstPort:
		return []expr.Any{loadPort(2, reg1)}, nil
	case filter.SrcTriple:
		return []expr.Any{e.loadAddr(filter.SrcAddr, first, e.family.Bits()/8), loadProtocol(next), loadPort(0, next+1)}, nil
	case filter.DstTriple:
		return []expr.Any{e.loadAddr(filter.DstAddr, first, e.family.Bits()/8), loadProtocol(next), loadPort(2, next+1)}, nil
	case filter.InIface:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}}, nil
	case filter.OutIface:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg1}}, nil
	case filter.InIfaceSrc:
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1},
			e.loadAddr(filter.SrcAddr, firstReg32+ifNameLen/4, e.family.Bits()/8),
		}, nil
	}
	return nil, fmt.Errorf("no encoding of field %d as a key", f)
}

func (e *encoder) loadAddr(f filter.Field, reg uint32, n int) expr.Any {
	offset := map[dataplane.Family][2]uint32{dataplane.IPv4: {12, 16}, dataplane.IPv6: {8, 24}}[e.family]
	at := offset[0]
	if f == filter.DstAddr {
		at = offset[1]
	}
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: uint32(n)}
}

func loadProtocol(reg uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg} }

func loadPort(offset, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}
}

func (e *encoder) prefix(f filter.Field, p netip.Prefix, op expr.CmpOp) ([]expr.Any, error) {
	if (f != filter.SrcAddr && f != filter.DstAddr) || dataplane.FamilyOf(p.Addr()) != e.family {
		return nil, fmt.Errorf("no encoding of field %d with prefix %v in %v", f, p, e.family)
	}
	n := e.family.Bits() / 8
	out := []expr.Any{e.loadAddr(f, reg1, n)}
	if !p.IsSingleIP() {
		out = append(out, &expr.Bitwise{
			SourceRegister: reg1, DestRegister: reg1, Len: uint32(n), Mask: maskOf(p.Bits(), n), Xor: make([]byte, n),
		})
	}
	return append(out, compare(op, p.Masked().Addr().AsSlice()...)), nil
}

func maskOf(bits, n int) []byte {
	mask := make([]byte, n)
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

func icmp(v filter.Type, op expr.CmpOp) []expr.Any {
	data := []byte{v.Type}
	if v.HasCode {
		data = append(data, v.Code)
	}
	load := &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Len: uint32(len(data))}
	return []expr.Any{load, compare(op, data...)}
}

const ifNameLen = 16

func ifName(s string) []byte {
	b := make([]byte, ifNameLen)
	copy(b, s)
	return b
}

func (e *encoder) iface(f filter.Field, v filter.Iface, op expr.CmpOp) ([]expr.Any, error) {
	x, err := e.key(f)
	if v.Prefix {
		return append(x, compare(op, []byte(v.Name)...)), err
	}
	return append(x, compare(op, ifName(v.Name)...)), err
}

func (e *encoder) action(a filter.Action) ([]expr.Any, error) {
	switch a := a.(type) {
	case filter.Log:
		return append(limit(a.Rate), e.log(a)), nil
	case filter.Count:
		return []expr.Any{&expr.Counter{}}, nil
	case filter.SetMark:
		return setBits(&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1}, filter.Bits(a)), nil
	case filter.SetCtMark:
		return setBits(&expr.Ct{Key: expr.CtKeyMARK, Register: reg1},
			&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: reg1}, filter.Bits(a)), nil
	case filter.Notrack:
		return []expr.Any{&expr.Notrack{}}, nil
	case filter.Masquerade:
		return []expr.Any{&expr.Masq{FullyRandom: true}}, nil
	case filter.SNAT:
		return e.nat(expr.NATTypeSourceNAT, a.Addr, 0), nil
	case filter.DNAT:
		return e.nat(expr.NATTypeDestNAT, a.Addr, a.Port), nil
	}
	return nil, fmt.Errorf("no encoding of action %T", a)
}

// limit lets the rest of the rule see no more than the rate.
func limit(r dataplane.Rate) []expr.Any {
	if r.Packets == 0 {
		return nil
	}
	unit := map[dataplane.Period]expr.LimitTime{
		dataplane.PerSecond: expr.LimitTimeSecond, dataplane.PerMinute: expr.LimitTimeMinute,
		dataplane.PerHour: expr.LimitTimeHour, dataplane.PerDay: expr.LimitTimeDay,
	}[r.Per]
	return []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(r.Packets), Unit: unit, Burst: uint32(r.Burst)}}
}

func (e *encoder) log(a filter.Log) expr.Any {
	x := &expr.Log{Key: 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_LEVEL, Level: expr.LogLevelNotice, Data: []byte(a.Prefix)}
	if group := cmp.Or(a.Group, e.group); group != 0 {
		x = &expr.Log{Key: 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_GROUP, Group: group, Data: []byte(a.Prefix)}
	}
	return x
}

// setBits loads, changes the bits within the mask, and stores.
func setBits(load, store expr.Any, b filter.Bits) []expr.Any {
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: ne32(^b.Mask), Xor: ne32(b.Value & b.Mask)},
		store,
	}
}

func (e *encoder) nat(t expr.NATType, addr netip.Addr, port uint16) []expr.Any {
	nat := &expr.NAT{Type: t, Family: uint32(e.afFamily()), RegAddrMin: reg1, RegAddrMax: reg1}
	out := []expr.Any{&expr.Immediate{Register: reg1, Data: addr.AsSlice()}}
	if port != 0 {
		out = append(out, &expr.Immediate{Register: unix.NFT_REG_2, Data: be16(port)})
		nat.RegProtoMin, nat.RegProtoMax, nat.Specified = unix.NFT_REG_2, unix.NFT_REG_2, true
	}
	return append(out, nat)
}

func (e *encoder) verdict(v verdict) ([]expr.Any, error) {
	kinds := map[filter.Verdict]expr.VerdictKind{
		filter.Return: expr.VerdictReturn, filter.Drop: expr.VerdictDrop, filter.Accept: expr.VerdictAccept,
	}
	switch v.Verdict {
	case filter.Continue:
		return nil, nil
	case filter.Reject:
		code := uint8(3) // port unreachable (RFC 792)
		if e.family == dataplane.IPv6 {
			code = 4 // RFC 4443
		}
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}}, nil
	case filter.Reset:
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}, nil
	case filter.Dispatch:
		return e.dispatch(v.target)
	}
	if kind, ok := kinds[v.Verdict]; ok {
		return []expr.Any{&expr.Verdict{Kind: kind}}, nil
	}
	return nil, fmt.Errorf("no encoding of verdict %v", v.Verdict)
}

// dispatch looks the chain up in a map.
func (e *encoder) dispatch(m string) ([]expr.Any, error) {
	x, err := e.key(e.maps[m])
	return append(x, &expr.Lookup{SourceRegister: reg1, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT, SetName: m}), err
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func be16(v uint16) []byte { return binaryutil.BigEndian.PutUint16(v) }
func ne32(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }
