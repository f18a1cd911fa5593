package netlink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	mnl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TableChange is what one transaction changed in a table of nftables, or, if Lost, the news
// that changes went by untold: then read everything back. The other fields are empty then.
type TableChange struct {
	Lost    bool
	Family  byte     // the table's, by netfilter's number
	Objects []string // the first few that were added or removed, for people
	Process string   // the name of the process that did it; "": not known
	PID     int      // its id in the first pid namespace
}

// By says who made the change.
func (c TableChange) By() string {
	if c.Process == "" {
		return "an unknown process"
	}
	return fmt.Sprintf("%s (pid %d)", c.Process, c.PID)
}

// TableMonitor tells what others change in the tables of one name, of IPv4 and IPv6.
type TableMonitor struct {
	conn    *mnl.Conn
	raw     syscall.RawConn
	table   string
	pending map[byte]*TableChange // by family, until the kernel has told who it was
}

// NewTableMonitor opens a TableMonitor in the namespace of descriptor ns, or Current. What
// the sockets of those ports change is not told, and costs the monitor nothing: the kernel
// keeps it back. The descriptor may be closed afterwards.
func NewTableMonitor(ns int, table string, ports ...uint32) (*TableMonitor, error) {
	m := &TableMonitor{table: table, pending: map[byte]*TableChange{}}
	err := Do(ns, func() (err error) {
		if m.conn, err = mnl.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
			return err
		}
		if m.raw, err = m.conn.SyscallConn(); err == nil {
			err = ignorePorts(m.raw, ports)
		}
		if err == nil {
			err = m.conn.JoinGroup(unix.NFNLGRP_NFTABLES)
		}
		if err != nil {
			m.conn.Close()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nftables monitor: %w", err)
	}
	// A larger buffer only makes Lost rarer: what the kernel refuses is done without.
	_ = m.conn.SetReadBuffer(monitorBuffer)
	return m, nil
}

// ignorePorts has the kernel drop, before they take room in the socket's buffer, messages
// that tell of what the sockets of those ports did. A notification's header bears the port of the
// one who caused it, and all messages of one datagram are of one transaction.
func ignorePorts(raw syscall.RawConn, ports []uint32) error {
	const portOffset, all = 12, 1<<32 - 1
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: portOffset}}
	for _, p := range ports {
		k := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, p)) // loads are in network order
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: all})
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
	})
	return errors.Join(err, failed)
}

// Run calls f for each change until ctx ends or the TableMonitor is closed, then closes it.
// f should be quick.
func (m *TableMonitor) Run(ctx context.Context, f func(TableChange)) error {
	defer m.conn.Close()
	defer context.AfterFunc(ctx, func() { m.conn.Close() })()
	buf := make([]byte, 64<<10)
	for {
		n, err := m.receive(buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			clear(m.pending)
			f(TableChange{Lost: true})
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, os.ErrClosed), errors.Is(err, unix.EBADF):
			return nil
		case err != nil:
			return fmt.Errorf("nftables monitor: %w", err)
		default:
			m.take(buf[:n], f)
		}
	}
}

// receive waits for one datagram.
func (m *TableMonitor) receive(buf []byte) (n int, err error) {
	waited := m.raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	})
	if waited != nil {
		return 0, waited
	}
	return n, err
}

// take reads the messages of a datagram.
func (m *TableMonitor) take(b []byte, f func(TableChange)) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return
		}
		kind := binary.NativeEndian.Uint16(b[4:])
		if body := b[unix.SizeofNlMsghdr:size]; len(body) >= sizeofNfgenmsg && kind>>8 == unix.NFNL_SUBSYS_NFTABLES {
			if kind &= 0xff; kind == unix.NFT_MSG_NEWGEN {
				m.generation(body, f)
			} else {
				m.object(kind, body)
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
}

// tableObjects are the kinds of objects of a table: the notifications of their coming and
// going, and the attribute that names them.
var tableObjects = []struct {
	kind     string
	add, del uint16
	name     uint16
}{
	{"rule of chain", unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE, unix.NFTA_RULE_CHAIN},
	{"element of set", unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM, unix.NFTA_SET_ELEM_LIST_SET},
	{"chain", unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN, unix.NFTA_CHAIN_NAME},
	{"set", unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET, unix.NFTA_SET_NAME},
	{"table", unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFTA_TABLE_NAME},
	{"object", unix.NFT_MSG_NEWOBJ, unix.NFT_MSG_DELOBJ, unix.NFTA_OBJ_NAME},
	{"flowtable", unix.NFT_MSG_NEWFLOWTABLE, unix.NFT_MSG_DELFLOWTABLE, 2},
}

// fewObjects is how many objects of a change are named.
const fewObjects = 3

// object notes what happened to one object, if it is of our tables. The first attribute of
// each is the table's name.
func (m *TableMonitor) object(kind uint16, body []byte) {
	family, table := body[0], nlText(body[sizeofNfgenmsg:], 1)
	if table != m.table || family != unix.NFPROTO_IPV4 && family != unix.NFPROTO_IPV6 {
		return
	}
	c := m.pending[family]
	if c == nil {
		c = &TableChange{Family: family}
		m.pending[family] = c
	}
	if len(c.Objects) >= fewObjects {
		return
	}
	for _, o := range tableObjects {
		verb := map[uint16]string{o.add: " added or changed", o.del: " removed"}[kind]
		if verb == "" {
			continue
		}
		what := o.kind + " " + nlText(body[sizeofNfgenmsg:], o.name) + verb
		if !slices.Contains(c.Objects, what) {
			c.Objects = append(c.Objects, what)
		}
	}
}

// generation ends a transaction: it says who made it.
func (m *TableMonitor) generation(body []byte, f func(TableChange)) {
	const procPID, procName = 2, 3 // NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME
	for family, c := range m.pending {
		if pid := nlAttr(body[sizeofNfgenmsg:], procPID); len(pid) == 4 {
			c.PID = int(binary.BigEndian.Uint32(pid))
		}
		c.Process = nlText(body[sizeofNfgenmsg:], procName)
		delete(m.pending, family)
		f(*c)
	}
}

// nlText is nlAttr of a text, which ends with a zero byte.
func nlText(b []byte, kind uint16) string {
	return strings.TrimRight(string(nlAttr(b, kind)), "\x00")
}

// nlAttr returns the first attribute of that type; nil: there is none.
func nlAttr(b []byte, kind uint16) []byte {
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == kind {
			return b[unix.SizeofNlAttr:n]
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return nil
}
