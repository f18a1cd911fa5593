package cni

import (
	"encoding/json"
	"net"
	"net/netip"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/netlink"
)

// result is what ADD prints, in the version of the specification that was asked for.
func result(r *Request, rec *Record) (json.RawMessage, error) {
	res := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			{Name: string(rec.Interface)},
			{Name: rec.ID.IfName, Mac: rec.MAC, Sandbox: r.NetNS},
		},
	}
	for _, a := range rec.Addrs {
		res.IPs = append(res.IPs, &types100.IPConfig{
			Interface: types100.Int(1),
			Address:   net.IPNet{IP: netlink.IP(a), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
			Gateway:   netlink.IP(gatewayOf(a)),
		})
	}
	version := r.Conf.CNIVersion
	if version == "" {
		version = "0.3.1"
	}
	out, err := res.GetAsVersion(version)
	if err != nil {
		return nil, wire.Errorf(wire.CodeIncompatible, "cniVersion %q: %v", version, err)
	}
	return json.Marshal(out)
}

func gatewayOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return gateway4
	}
	return gateway6
}
