package lab_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
	"rsc.io/script"

	"github.com/calicogo/calico/lab/labtest"
)

// forge is a script command: an echo request from INNER-SOURCE to INNER-DESTINATION, packed
// in IP, protocol 4, from OUTER-SOURCE to OUTER-DESTINATION, is sent from a pod or node. That
// the sender's own kernel will not send it is no error: what counts is what arrives.
func forge(l *labtest.Lab, s *script.State, args []string) error {
	if len(args) != 5 {
		return script.ErrUsage
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := l.Command(s.Context(), append([]string{"exec", args[0], "--", self, "forge"}, args[1:]...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// The test program itself is what forge runs in a pod.
func init() {
	if len(os.Args) != 6 || os.Args[1] != "forge" {
		return
	}
	if err := sendForged(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func sendForged(args []string) error {
	var a [4]netip.Addr
	for i := range a {
		var err error
		if a[i], err = netip.ParseAddr(args[i]); err != nil {
			return err
		}
	}
	echo := make([]byte, 64)
	echo[0] = 8 // RFC 792
	binary.BigEndian.PutUint16(echo[2:], sum(echo))
	packet := packed(a[0], a[1], unix.IPPROTO_IPIP, packed(a[2], a[3], unix.IPPROTO_ICMP, echo))
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: a[1].As4()})
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// packed is a payload behind an IPv4 header (RFC 791).
func packed(from, to netip.Addr, protocol byte, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(cap(b)))
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	binary.BigEndian.PutUint16(b[10:], sum(b))
	return append(b, payload...)
}

// sum is the Internet checksum (RFC 1071) of an even number of bytes.
func sum(b []byte) uint16 {
	s := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
