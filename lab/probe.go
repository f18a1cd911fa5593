package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/tunnel"
)

// feature is something that a lab needs of the kernel, and how to try it.
type feature struct {
	what, module string
	try          func() error
}

// checkKernel tries, in the lab's own namespace, what a lab of these options needs. Its
// error names the module.
func checkKernel(o Options) error {
	features := []feature{
		{"veth devices", "veth", tryLink(&vnl.Veth{LinkAttrs: vnl.LinkAttrs{Name: "probe0"}, PeerName: "probe1"})},
		{"bridges", "bridge", tryLink(&vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "probe0"}})},
	}
	if !o.NoAgents {
		features = append(features, feature{"nftables", "nf_tables", tryNFTables})
	}
	if o.Encap == EncapVXLAN && !o.NoAgents {
		features = append(features, feature{"VXLAN devices", "vxlan",
			tryLink(&vnl.Vxlan{LinkAttrs: vnl.LinkAttrs{Name: "probe0"}, VxlanId: 1, Port: 4789})})
	}
	for _, f := range features {
		if err := f.try(); err != nil {
			return f.missing(err)
		}
	}
	if !o.NoAgents {
		if err := findTools(o.Backend); err != nil {
			return err
		}
	}
	if o.Encap == EncapIPIP && !o.NoAgents {
		return tryIPIP()
	}
	return nil
}

// tryIPIP asks for either of two ways to make the device; the error says what lacks for each.
func tryIPIP() error {
	if _, err := tunnel.ProbeIPIP(); err != nil {
		return fmt.Errorf("--encap ipip is not for this kernel: %w; or take --encap vxlan", err)
	}
	return nil
}

// backendTools are the programs by which a backend works.
var backendTools = map[string][]string{
	BackendIptables:       {"iptables-nft-restore", "ip6tables-nft-restore", "ipset"},
	BackendIptablesLegacy: {"iptables-legacy-restore", "ip6tables-legacy-restore", "ipset"},
}

func findTools(backend string) error {
	for _, tool := range backendTools[backend] {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("--backend %s needs the program %s, which is not installed: install the packages iptables and ipset", backend, tool)
		}
	}
	return nil
}

func (f feature) missing(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("this kernel has no %s: load the module %s (`modprobe %s`), or boot a kernel that has it (%w)", f.what, f.module, f.module, err)
	}
	return fmt.Errorf("try %s: %w", f.what, err)
}

func tryLink(l vnl.Link) func() error {
	return func() error {
		h, err := netlink.Open(netlink.Current)
		if err != nil {
			return err
		}
		defer h.Close()
		if err := h.LinkAdd(l); err != nil {
			return err
		}
		return h.LinkDel(l)
	}
}

// tryNFTables asks for the generation number of the ruleset (NFT_MSG_GETGEN), which every
// kernel with nf_tables answers.
func tryNFTables() error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	order := binary.NativeEndian
	request := make([]byte, 20) // nlmsghdr and nfgenmsg
	order.PutUint32(request[0:], 20)
	order.PutUint16(request[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN)
	order.PutUint16(request[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(s, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, answer, 0)
	if err != nil {
		return err
	}
	if n >= 20 && order.Uint16(answer[4:]) == unix.NLMSG_ERROR {
		if code := int32(order.Uint32(answer[16:])); code != 0 {
			return unix.Errno(-code)
		}
	}
	return nil
}
