package difftest

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/dataplane"
)

// Attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaTupleOrig, ctaTupleReply, ctaStatus, ctaProtoinfo, ctaTimeout, ctaMark = 1, 2, 3, 4, 7, 8

	ctaTupleIP, ctaTupleProto                            = 1, 2
	ctaProtoNum, ctaProtoSrc, ctaProtoDst                = 1, 2, 3
	ctaICMP, ctaICMPv6                                   = 4, 7 // each of identifier, type and code
	ctaProtoinfoTCP, ctaProtoinfoTCPState                = 1, 1
	ctaProtoinfoSCTP, ctaProtoinfoSCTPState              = 3, 1
	ctaProtoinfoSCTPVtagOrig, ctaProtoinfoSCTPVtagAnswer = 2, 3

	tcpEstablished, sctpEstablished = 3, 4

	statusSeenReply, statusAssured, statusConfirmed = 1 << 1, 1 << 2, 1 << 3
)

// vtag is the verification tag of SCTP packets of flows that are made, both ways.
const vtag = 0x0a0b0c0d

// makeFlows makes the entries that the probes are of; the first probe has that id.
func (w *world) makeFlows(probes []Probe, first uint32) error {
	n := 0
	var all []mdl.Message
	for i := range probes {
		if probes[i].Flow == nil {
			continue
		}
		m, err := entry(&probes[i], first+uint32(i))
		if err != nil {
			return err
		}
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil
	}
	if _, err := w.flows.SendMessages(all); err != nil {
		return fmt.Errorf("make flows: %w", err)
	}
	for n < len(all) {
		acks, err := w.flows.Receive()
		if err != nil {
			return fmt.Errorf("make flows: %w", err)
		}
		n += len(acks)
	}
	return nil
}

func entry(x *Probe, id uint32) (mdl.Message, error) {
	p, back := x.Packet, x.Packet
	back.Src, back.Dst, back.SrcPort, back.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	if p.ICMP() {
		back.Type = map[uint8]uint8{8: 0, 13: 14, 128: 129}[p.Type]
	}
	if x.Flow.Reply {
		p, back = back, p
	}
	status := uint32(statusConfirmed)
	if x.Flow.Answered {
		status |= statusSeenReply | statusAssured
	}
	ae := mdl.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Nested(ctaTupleOrig, tupleOf(&p, id))
	ae.Nested(ctaTupleReply, tupleOf(&back, id))
	ae.Uint32(ctaStatus, status)
	ae.Uint32(ctaTimeout, 600)
	ae.Uint32(ctaMark, x.Flow.Mark)
	if x.Flow.Answered {
		protoinfo(ae, p.Protocol)
	}
	body, err := ae.Encode()
	const create = unix.NFNL_SUBSYS_CTNETLINK << 8 // and IPCTNL_MSG_CT_NEW, 0
	return mdl.Message{
		Header: mdl.Header{Type: create, Flags: mdl.Request | mdl.Acknowledge | mdl.Create | mdl.Excl},
		Data:   append([]byte{map[dataplane.Family]byte{4: unix.AF_INET, 6: unix.AF_INET6}[p.Family()], 0, 0, 0}, body...),
	}, err
}

func tupleOf(p *dataplane.Packet, id uint32) func(*mdl.AttributeEncoder) error {
	return func(ae *mdl.AttributeEncoder) error {
		ae.Nested(ctaTupleIP, func(ae *mdl.AttributeEncoder) error {
			at := map[dataplane.Family][2]uint16{4: {1, 2}, 6: {3, 4}}[p.Family()]
			for i, a := range []netip.Addr{p.Src, p.Dst} {
				ae.Bytes(at[i], a.AsSlice())
			}
			return nil
		})
		ae.Nested(ctaTupleProto, func(ae *mdl.AttributeEncoder) error {
			ae.Uint8(ctaProtoNum, uint8(p.Protocol))
			if p.Ports() {
				ae.Uint16(ctaProtoSrc, p.SrcPort)
				ae.Uint16(ctaProtoDst, p.DstPort)
				return nil
			}
			icmp := map[dataplane.Family]uint16{4: ctaICMP, 6: ctaICMPv6}[p.Family()]
			ae.Uint16(icmp, uint16(id))
			ae.Uint8(icmp+1, p.Type)
			ae.Uint8(icmp+2, p.Code)
			return nil
		})
		return nil
	}
}

// protoinfo says of protocols with states of their own that the flow is established.
func protoinfo(ae *mdl.AttributeEncoder, p dataplane.Protocol) {
	switch p {
	case dataplane.TCP:
		ae.Nested(ctaProtoinfo, func(ae *mdl.AttributeEncoder) error {
			ae.Nested(ctaProtoinfoTCP, func(ae *mdl.AttributeEncoder) error {
				ae.Uint8(ctaProtoinfoTCPState, tcpEstablished)
				return nil
			})
			return nil
		})
	case dataplane.SCTP:
		ae.Nested(ctaProtoinfo, func(ae *mdl.AttributeEncoder) error {
			ae.Nested(ctaProtoinfoSCTP, func(ae *mdl.AttributeEncoder) error {
				ae.Uint8(ctaProtoinfoSCTPState, sctpEstablished)
				ae.Uint32(ctaProtoinfoSCTPVtagOrig, vtag)
				ae.Uint32(ctaProtoinfoSCTPVtagAnswer, vtag)
				return nil
			})
			return nil
		})
	}
}
