package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LogRequest prints what the action Log tells of packets on a node: not to the kernel's log,
// which is one for all nodes of a lab, but to a group of NFLOG.
type LogRequest struct {
	Node  string
	Group uint16
	Match string        // only lines that contain it
	Count int           // 0: no limit
	For   time.Duration // 0: until the client hangs up
}

// log prints a first line when it listens, then one for each packet that is logged.
func (s *Supervisor) log(c *call, r LogRequest) (any, error) {
	n, err := s.nodeNamed(r.Node)
	if err != nil {
		return nil, err
	}
	fd := -1
	err = n.ns.do(func() (err error) {
		fd, err = openNFLOG(r.Group)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen to NFLOG group %d of %s: %w", r.Group, n.name, err)
	}
	defer unix.Close(fd)
	fmt.Fprintf(c, "listening to NFLOG group %d of %s\n", r.Group, n.name)
	began, buf := time.Now(), make([]byte, 65536)
	for seen := 0; c.ctx.Err() == nil && (r.Count == 0 || seen < r.Count); {
		if r.For > 0 && time.Since(began) > r.For {
			break
		}
		size, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			continue // the receive time-out
		}
		for _, line := range logLines(buf[:size]) {
			if strings.Contains(line, r.Match) {
				seen++
				fmt.Fprintln(c, line)
			}
		}
	}
	return nil, nil
}

// Of linux/netfilter/nfnetlink_log.h.
const (
	nflogPacket, nflogConfig      = unix.NFNL_SUBSYS_ULOG << 8, unix.NFNL_SUBSYS_ULOG<<8 | 1
	nflogCommand, nflogMode       = 1, 2 // attributes of config
	nflogBind, nflogCopyPacket    = 1, 2
	nflogPayload, nflogPrefix     = 9, 10 // attributes of a packet
	nflogCopied                   = 256   // bytes of a packet
	nlHeader, nfHeader, nfAligned = 16, 4, 4
)

// openNFLOG is a netlink socket that is told of the group's packets, of the calling thread's
// network namespace.
func openNFLOG(group uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, err
	}
	mode := append(binary.BigEndian.AppendUint32(nil, nflogCopied), nflogCopyPacket, 0)
	for _, attribute := range [][]byte{
		netlinkAttribute(nflogCommand, []byte{nflogBind}), netlinkAttribute(nflogMode, mode),
	} {
		if err = askNFLOG(fd, group, attribute); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	tick := unix.Timeval{Usec: 50_000}
	return fd, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick)
}

// askNFLOG sends one request and reads its answer.
func askNFLOG(fd int, group uint16, attribute []byte) error {
	order := binary.NativeEndian
	b := order.AppendUint32(nil, uint32(nlHeader+nfHeader+len(attribute)))
	b = order.AppendUint16(b, nflogConfig)
	b = order.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = append(b, make([]byte, 8)...) // sequence number and port
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, group)
	if err := unix.Sendto(fd, append(b, attribute...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(fd, answer, 0)
		if err != nil {
			return err
		}
		if n < nlHeader+4 || order.Uint16(answer[4:]) != unix.NLMSG_ERROR {
			continue // a packet already
		}
		if code := int32(order.Uint32(answer[nlHeader:])); code != 0 {
			return unix.Errno(-code)
		}
		return nil
	}
}

func netlinkAttribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&(nfAligned-1))...)
}

// logLines are a line for each packet of a datagram: the rule's prefix, and what the packet
// is.
func logLines(b []byte) (lines []string) {
	order := binary.NativeEndian
	for len(b) >= nlHeader+nfHeader {
		size := int(order.Uint32(b))
		if size < nlHeader+nfHeader || size > len(b) {
			return lines
		}
		if order.Uint16(b[4:]) == nflogPacket {
			lines = append(lines, logLine(b[nlHeader+nfHeader:size]))
		}
		b = b[min(len(b), (size+nfAligned-1)&^(nfAligned-1)):]
	}
	return lines
}

func logLine(b []byte) string {
	prefix, packet := "", ""
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			break
		}
		value := b[4:size]
		switch binary.NativeEndian.Uint16(b[2:]) &^ unix.NLA_F_NESTED {
		case nflogPrefix:
			prefix = string(bytes.TrimRight(value, "\x00 :"))
		case nflogPayload:
			packet = describeIP(value)
		}
		b = b[min(len(b), (size+nfAligned-1)&^(nfAligned-1)):]
	}
	return prefix + ": " + packet
}

// describeIP describes an IP packet.
func describeIP(b []byte) string {
	if len(b) > 0 && b[0]>>4 == 6 {
		return describe6(b)
	}
	return describe4(b)
}
