package netlink

import (
	"errors"
	"fmt"

	mnl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Numbers of the kernel's ethtool over generic netlink (linux/ethtool_netlink.h, genetlink.h)
// that golang.org/x/sys does not have.
const (
	genlHeaderLen   = 4
	ethtoolVersion  = 1
	familyName      = "ethtool"
	ctrlVersion     = 1
	featuresGet     = unix.ETHTOOL_MSG_FEATURES_GET
	featuresSet     = unix.ETHTOOL_MSG_FEATURES_SET
	headerAttr      = unix.ETHTOOL_A_FEATURES_HEADER
	wantedAttr      = unix.ETHTOOL_A_FEATURES_WANTED
	activeAttr      = unix.ETHTOOL_A_FEATURES_ACTIVE
	headerLinkIndex = unix.ETHTOOL_A_HEADER_DEV_INDEX
	headerFlags     = unix.ETHTOOL_A_HEADER_FLAGS
	omitReply       = unix.ETHTOOL_FLAG_OMIT_REPLY
)

// Features returns the offload features of a link that are on, by the names that
// `ethtool -k` in its long form has, for instance tx-checksum-ip-generic. The error is an
// errors.ErrUnsupported where the kernel has no ethtool over netlink (Linux 5.6,
// CONFIG_ETHTOOL_NETLINK).
func (h *Handle) Features(link int) (map[string]bool, error) {
	var on map[string]bool
	err := h.ethtool(func(e *ethtool) (err error) {
		on, err = e.features(link)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read offload features of link %d: %w", link, err)
	}
	return on, nil
}

// FeaturesOff turns offload features of a link off. All must be features that the kernel
// knows.
func (h *Handle) FeaturesOff(link int, names ...string) error {
	err := h.ethtool(func(e *ethtool) error { return e.off(link, names) })
	if err != nil {
		return fmt.Errorf("turn off offload features %v of link %d: %w", names, link, err)
	}
	return nil
}

// ethtool is a socket for requests to the family of that name.
type ethtool struct {
	conn   *mnl.Conn
	family uint16
}

func (h *Handle) ethtool(f func(*ethtool) error) error {
	return h.Do(func() error {
		conn, err := mnl.Dial(unix.NETLINK_GENERIC, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		e := &ethtool{conn: conn}
		if e.family, err = e.lookUp(); err != nil {
			return err
		}
		return f(e)
	})
}

// lookUp asks the kernel for the family's number.
func (e *ethtool) lookUp() (uint16, error) {
	ae := mnl.NewAttributeEncoder()
	ae.String(unix.CTRL_ATTR_FAMILY_NAME, familyName)
	replies, err := e.ask(0, unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY, ctrlVersion, ae)
	if errors.Is(err, unix.ENOENT) {
		return 0, fmt.Errorf("%w: the kernel has no ethtool over netlink (CONFIG_ETHTOOL_NETLINK)", errors.ErrUnsupported)
	}
	if err != nil {
		return 0, err
	}
	var family uint16
	err = replies(func(ad *mnl.AttributeDecoder) {
		if ad.Type() == unix.CTRL_ATTR_FAMILY_ID {
			family = ad.Uint16()
		}
	})
	return family, err
}

func (e *ethtool) features(link int) (map[string]bool, error) {
	replies, err := e.ask(0, e.family, featuresGet, ethtoolVersion, about(link, 0))
	if err != nil {
		return nil, err
	}
	on := map[string]bool{}
	err = replies(func(ad *mnl.AttributeDecoder) {
		if ad.Type() == activeAttr {
			ad.Nested(func(ad *mnl.AttributeDecoder) error { return bitset(ad, on) })
		}
	})
	return on, err
}

// bitset reads the names that are set in a bitset that comes as a list.
func bitset(ad *mnl.AttributeDecoder, on map[string]bool) error {
	for ad.Next() {
		if ad.Type() != unix.ETHTOOL_A_BITSET_BITS {
			continue
		}
		ad.Nested(func(ad *mnl.AttributeDecoder) error {
			for ad.Next() {
				ad.Nested(func(ad *mnl.AttributeDecoder) error {
					for ad.Next() {
						if ad.Type() == unix.ETHTOOL_A_BITSET_BIT_NAME {
							on[ad.String()] = true
						}
					}
					return nil
				})
			}
			return nil
		})
	}
	return nil
}

func (e *ethtool) off(link int, names []string) error {
	ae := about(link, omitReply)
	ae.Nested(wantedAttr, func(ae *mnl.AttributeEncoder) error {
		ae.Nested(unix.ETHTOOL_A_BITSET_BITS, func(ae *mnl.AttributeEncoder) error {
			for _, name := range names {
				// A bit that is named without a value is one that shall be off.
				ae.Nested(unix.ETHTOOL_A_BITSET_BITS_BIT, func(ae *mnl.AttributeEncoder) error {
					ae.String(unix.ETHTOOL_A_BITSET_BIT_NAME, name)
					return nil
				})
			}
			return nil
		})
		return nil
	})
	_, err := e.ask(mnl.Acknowledge, e.family, featuresSet, ethtoolVersion, ae)
	return err
}

// about begins a request that concerns a link.
func about(link int, flags uint32) *mnl.AttributeEncoder {
	ae := mnl.NewAttributeEncoder()
	ae.Nested(headerAttr, func(ae *mnl.AttributeEncoder) error {
		ae.Uint32(headerLinkIndex, uint32(link))
		ae.Uint32(headerFlags, flags)
		return nil
	})
	return ae
}

// ask sends a request, which is answered by one message, and returns a function that goes
// through the attributes of the reply.
func (e *ethtool) ask(flags mnl.HeaderFlags, family uint16, command, version uint8, ae *mnl.AttributeEncoder) (func(func(*mnl.AttributeDecoder)) error, error) {
	attrs, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	msgs, err := e.conn.Execute(mnl.Message{
		Header: mnl.Header{Type: mnl.HeaderType(family), Flags: mnl.Request | flags},
		Data:   append([]byte{command, version, 0, 0}, attrs...),
	})
	if err != nil {
		return nil, err
	}
	return func(f func(*mnl.AttributeDecoder)) error {
		for _, m := range msgs {
			if len(m.Data) < genlHeaderLen {
				continue
			}
			if err := attributes(m.Data[genlHeaderLen:], f); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
