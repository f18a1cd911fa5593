package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/netlink"
)

// witness watches a pod's interface.
type witness struct {
	socket *os.File // nonblocking
	saw    func(frame []byte, leaving bool)
	done   sync.WaitGroup
}

// witnessFrame is how much of a frame a witness sees.
const witnessFrame = 256

// probePacket is a packet that passed a pod's interface.
type probePacket struct {
	from, to netip.AddrPort
	opens    bool // UDP, or TCP with SYN
	leaving  bool // the pod
}

// witnessBuffer holds what comes while the reader does not run, in bytes.
const witnessBuffer = 8 << 20

// watch starts a witness of the packets by which flows open, UDP, and TCP with SYN or RST;
// saw is called from one goroutine, for each.
func watch(ns *namespaces, saw func(probePacket)) (*witness, error) {
	return watchFrames(ns, func(frame []byte, leaving bool) {
		if pkt, ok := parseProbe(frame); ok {
			pkt.leaving = leaving
			saw(pkt)
		}
	})
}

// watchFrames starts a witness of all Ethernet frames, the pod's own among them: those that
// leave. saw is called from one goroutine and must not keep the frame.
func watchFrames(ns *namespaces, saw func(frame []byte, leaving bool)) (*witness, error) {
	w := &witness{saw: saw}
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
	frame := make([]byte, witnessFrame)
	for {
		n, from, err := unix.Recvfrom(fd, frame, 0)
		if err == unix.EINTR || err == unix.ENETDOWN {
			continue
		}
		if err != nil {
			return
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		w.saw(frame[:n], ok && link.Pkttype == unix.PACKET_OUTGOING)
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

// ipPacket is an IP packet, whose body may be cut short.
type ipPacket struct {
	from, to netip.Addr
	protocol byte
	body     []byte
}

// parseIP reads an Ethernet frame, without extension headers of IPv6.
func parseIP(b []byte) (ipPacket, bool) {
	if len(b) < 14 {
		return ipPacket{}, false
	}
	switch kind, b := binary.BigEndian.Uint16(b[12:]), b[14:]; {
	case kind == unix.ETH_P_IP && len(b) >= 20 && b[0]&15 >= 5 && len(b) >= int(b[0]&15)*4:
		from, to := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		header := int(b[0]&15) * 4
		return ipPacket{from, to, b[9], cut(b[header:], int(binary.BigEndian.Uint16(b[2:]))-header)}, true
	case kind == unix.ETH_P_IPV6 && len(b) >= 40:
		from, to := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		return ipPacket{from, to, b[6], cut(b[40:], int(binary.BigEndian.Uint16(b[4:])))}, true
	}
	return ipPacket{}, false
}

// cut cuts what an Ethernet frame was filled up with. A header without a length is one that
// the kernel fills in later.
func cut(b []byte, length int) []byte {
	if length <= 0 || length > len(b) {
		return b
	}
	return b[:length]
}

// parseProbe reads an Ethernet frame; false if the packet neither opens nor ends a flow.
func parseProbe(frame []byte) (probePacket, bool) {
	const syn, rst = 2, 4 // RFC 9293, section 3.1
	p, ok := parseIP(frame)
	udp := ok && p.protocol == unix.IPPROTO_UDP && len(p.body) >= 8
	tcp := ok && p.protocol == unix.IPPROTO_TCP && len(p.body) >= 20 && p.body[13]&(syn|rst) != 0
	if !udp && !tcp {
		return probePacket{}, false
	}
	return probePacket{
		from:  netip.AddrPortFrom(p.from, binary.BigEndian.Uint16(p.body)),
		to:    netip.AddrPortFrom(p.to, binary.BigEndian.Uint16(p.body[2:])),
		opens: udp || p.body[13]&syn != 0,
	}, true
}
