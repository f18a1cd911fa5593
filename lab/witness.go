package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// witness watches a pod's interface for packets by which flows open: UDP, and TCP with
// SYN or RST.
type witness struct {
	socket *os.File // nonblocking
	own    map[netip.Addr]bool
	saw    func(probePacket)
	done   sync.WaitGroup
}

// probePacket is a packet that passed a pod's interface.
type probePacket struct {
	from, to netip.AddrPort
	opens    bool // UDP, or TCP with SYN
	leaving  bool // the pod
}

// witnessBuffer holds what comes while the reader does not run, in bytes.
const witnessBuffer = 8 << 20

// watch starts a witness; saw is called from one goroutine, for each packet.
func watch(ns *namespaces, saw func(probePacket)) (*witness, error) {
	w := &witness{own: map[netip.Addr]bool{}, saw: saw}
	if err := ns.do(w.open); err != nil {
		return nil, fmt.Errorf("watch a pod's interface: %w", err)
	}
	raw, err := w.socket.SyscallConn()
	if err != nil {
		w.socket.Close()
		return nil, err
	}
	w.done.Go(func() {
		raw.Read(func(fd uintptr) bool { // until close
			w.drain(int(fd))
			return false
		})
		raw.Control(func(fd uintptr) { w.drain(int(fd)) })
	})
	return w, nil
}

// open makes the socket in the calling thread's network namespace.
func (w *witness) open() error {
	h, err := netlink.Open(netlink.Current)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(podInterface)
	if err != nil {
		return err
	}
	addrs, err := h.AddrList(link, vnl.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			w.own[ip.Unmap()] = true
		}
	}
	fd, err := sniffer(link.Attrs().Index)
	if err != nil {
		return err
	}
	err = errors.Join(unix.SetNonblock(fd, true), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, witnessBuffer))
	if err != nil {
		unix.Close(fd)
		return err
	}
	w.socket = os.NewFile(uintptr(fd), "packet socket")
	return nil
}

// drain reads the socket empty.
func (w *witness) drain(fd int) {
	frame := make([]byte, 128) // the rest is not looked at
	for {
		n, _, err := unix.Recvfrom(fd, frame, 0)
		if err == unix.EINTR || err == unix.ENETDOWN {
			continue
		}
		if err != nil {
			return
		}
		if pkt, ok := parseProbe(frame[:n]); ok {
			pkt.leaving = w.own[pkt.from.Addr()]
			w.saw(pkt)
		}
	}
}

// close ends the watching once all that has passed so far is told, and returns how many
// packets were missed.
func (w *witness) close() (missed int) {
	w.socket.SetReadDeadline(time.Unix(1, 0))
	w.done.Wait()
	defer w.socket.Close()
	raw, err := w.socket.SyscallConn()
	if err != nil {
		return 1
	}
	missed = 1
	raw.Control(func(fd uintptr) {
		stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil {
			missed = int(stats.Drops)
		}
	})
	return missed
}

// parseProbe reads an Ethernet frame.
func parseProbe(b []byte) (probePacket, bool) {
	if len(b) < 14 {
		return probePacket{}, false
	}
	switch kind, b := binary.BigEndian.Uint16(b[12:]), b[14:]; {
	case kind == unix.ETH_P_IP && len(b) >= 20 && len(b) >= int(b[0]&15)*4:
		return parsePorts(netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9], b[int(b[0]&15)*4:])
	case kind == unix.ETH_P_IPV6 && len(b) >= 40:
		return parsePorts(netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], b[40:])
	}
	return probePacket{}, false
}

func parsePorts(from, to netip.Addr, protocol byte, b []byte) (probePacket, bool) {
	const syn, rst = 2, 4 // RFC 9293, section 3.1
	udp := protocol == unix.IPPROTO_UDP && len(b) >= 8
	tcp := protocol == unix.IPPROTO_TCP && len(b) >= 20 && b[13]&(syn|rst) != 0
	if !udp && !tcp {
		return probePacket{}, false
	}
	return probePacket{
		from:  netip.AddrPortFrom(from, binary.BigEndian.Uint16(b)),
		to:    netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:])),
		opens: udp || b[13]&syn != 0,
	}, true
}
