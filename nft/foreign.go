package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Foreign is what matters of the tables that are not ours. Their rules are not read.
type Foreign struct {
	// Droppers are the base chains at the forward hook whose policy is drop: they drop what none
	// of their rules accepts, whatever ours say.
	Droppers []BaseChain
	// IptablesChains tells that iptables' tables have chains that are called as ours are.
	IptablesChains bool
}

// BaseChain is a chain that packets enter at a hook.
type BaseChain struct {
	Family, Table, Name string
	Priority            int
}

func (c BaseChain) String() string {
	return fmt.Sprintf("chain %s of table %s %s (priority %d)", c.Name, c.Family, c.Table, c.Priority)
}

var foreignFamilies = []struct {
	number byte
	name   string
}{{unix.NFPROTO_INET, "inet"}, {unix.NFPROTO_IPV4, "ip"}, {unix.NFPROTO_IPV6, "ip6"}}

// iptablesTables are the tables of iptables-nft that hold rules of ours.
var iptablesTables = []string{"raw", "mangle", "nat", "filter"}

// Foreign lists the chains of others.
func (d *Driver) Foreign() (out Foreign, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range foreignFamilies {
		err := d.sock.get(unix.NFT_MSG_GETCHAIN, f.number, mdl.Dump, nil, func(b []byte) { out.see(f.name, b) })
		// What changes meanwhile is seen the next time.
		if err != nil && !errors.Is(err, errInterrupted) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOENT) {
			return out, fmt.Errorf("nftables: list chains: %w", err)
		}
	}
	return out, nil
}

// see takes a chain in.
func (f *Foreign) see(family string, b []byte) {
	if ours(b) {
		return
	}
	c := BaseChain{Family: family, Table: text(attribute(b, unix.NFTA_CHAIN_TABLE)), Name: text(attribute(b, unix.NFTA_CHAIN_NAME))}
	if family != "inet" && strings.HasPrefix(c.Name, "cali") && slices.Contains(iptablesTables, c.Table) {
		f.IptablesChains = true
	}
	hook := attribute(b, unix.NFTA_CHAIN_HOOK)
	policy := attribute(b, unix.NFTA_CHAIN_POLICY)
	if len(hook) == 0 || len(policy) == 0 || number(policy) != 0 || number(attribute(hook, unix.NFTA_HOOK_HOOKNUM)) != unix.NF_INET_FORWARD {
		return
	}
	c.Priority = int(int32(number(attribute(hook, unix.NFTA_HOOK_PRIORITY))))
	f.Droppers = append(f.Droppers, c)
}

// ErrTaken is of a table of our name that only the process that has made it may change (its flag owner). Nothing
// of ours is in it.
var ErrTaken = errors.New("belongs to another process")

// Taken tells whether one of our tables is another process's, and whose; nil: none is. The table goes
// with that process.
func (d *Driver) Taken() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tables {
		owner := uint32(0)
		err := d.sock.get(unix.NFT_MSG_GETTABLE, t.enc.afFamily(), 0, []mdl.Attribute{tableAttr()}, func(b []byte) { owner = ownerOf(b) })
		if err == nil && owner != 0 && owner != d.sock.port {
			return fmt.Errorf("nftables, table %s of %v %w, that of netlink port %d, which mostly is its pid: end that process, and its table goes", tableName, t.enc.family, ErrTaken, owner)
		}
	}
	return nil
}

// nftaTableOwner is NFTA_TABLE_OWNER (linux/netfilter/nf_tables.h).
const nftaTableOwner = 7

// ownerOf is the netlink port of a table's owner; 0: it has none.
func ownerOf(b []byte) uint32 {
	if a := attribute(b, nftaTableOwner); len(a) > 0 {
		return number(a)
	}
	return 0
}
