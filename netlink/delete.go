package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	mnl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Deleter deletes links of one namespace. The kernel waits for all processors (an RCU
// barrier, some 20 ms) for each request that deletes, however many links it names: those
// that callers ask for while one request runs go with the next, as a group. It has a
// socket of its own, so that nobody else's requests wait meanwhile. It is safe for
// concurrent use.
type Deleter struct {
	conn *mnl.Conn
	turn chan struct{} // held by who deletes for all that wait

	mu      sync.Mutex
	waiting []*deletion
}

// deletion is one link, and what came of it.
type deletion struct {
	index int
	done  chan struct{}
	err   error // to be read after done is closed
}

const (
	// deleteGroup is the group that links are put into to be deleted: "cali", a number
	// that nobody else uses. That no other link is in it is looked up each time.
	deleteGroup = 0x63616c69
	// maxDeleted bounds how long one request holds the kernel's lock of links.
	maxDeleted = 64
)

// NewDeleter opens a Deleter in the namespace of descriptor ns, or Current. The descriptor
// may be closed afterwards.
func NewDeleter(ns int) (*Deleter, error) {
	d := &Deleter{turn: make(chan struct{}, 1)}
	err := Do(ns, func() (err error) {
		d.conn, err = mnl.Dial(unix.NETLINK_ROUTE, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return d, nil
}

// Close closes the socket.
func (d *Deleter) Close() { d.conn.Close() }

// Delete deletes a link and returns when it is gone; that there is none is no error.
func (d *Deleter) Delete(index int) error {
	x := &deletion{index: index, done: make(chan struct{})}
	d.mu.Lock()
	d.waiting = append(d.waiting, x)
	d.mu.Unlock()
	for {
		select {
		case <-x.done:
			return x.err
		case d.turn <- struct{}{}:
			d.deleteAll(d.take())
			<-d.turn
		}
	}
}

func (d *Deleter) take() []*deletion {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(len(d.waiting), maxDeleted)
	xs := d.waiting[:n:n]
	d.waiting = d.waiting[n:]
	return xs
}

// deleteAll ends the deletions. What cannot go with the others goes alone.
func (d *Deleter) deleteAll(xs []*deletion) {
	together := len(xs) > 1 && d.deleteGroup(xs) == nil
	for _, x := range xs {
		if !together && x.err == nil {
			x.err = d.request(unix.RTM_DELLINK, x.index)
		}
		if errors.Is(x.err, unix.ENODEV) {
			x.err = nil
		}
		close(x.done)
	}
}

var errForeign = errors.New("the group has links that are not to be deleted")

// deleteGroup puts the links into the group and deletes it.
func (d *Deleter) deleteGroup(xs []*deletion) error {
	wanted := map[int]bool{}
	for _, x := range xs {
		wanted[x.index] = true
		err := d.request(unix.RTM_SETLINK, x.index, deleteGroup)
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	in, err := d.group()
	if err != nil {
		return err
	}
	for _, index := range in {
		if !wanted[index] {
			return errForeign
		}
	}
	if len(in) == 0 {
		return nil
	}
	return d.request(unix.RTM_DELLINK, 0, deleteGroup)
}

// request sends a message of one link, or with index 0 of a group, and waits for the
// answer.
func (d *Deleter) request(kind mnl.HeaderType, index int, group ...uint32) error {
	data := ifinfomsg(index)
	if len(group) > 0 {
		e := mnl.NewAttributeEncoder()
		e.Uint32(unix.IFLA_GROUP, group[0])
		b, err := e.Encode()
		if err != nil {
			return err
		}
		data = append(data, b...)
	}
	_, err := d.conn.Execute(mnl.Message{Header: mnl.Header{Type: kind, Flags: mnl.Request | mnl.Acknowledge}, Data: data})
	return err
}

// ifinfomsg is the fixed part of a link's message; see rtnetlink(7).
func ifinfomsg(index int) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return b
}

// group lists the indexes of the links in the group.
func (d *Deleter) group() (indexes []int, err error) {
	msgs, err := d.conn.Execute(mnl.Message{Header: mnl.Header{Type: unix.RTM_GETLINK, Flags: mnl.Request | mnl.Dump}, Data: ifinfomsg(0)})
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		a, err := mnl.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
		if err != nil {
			return nil, err
		}
		for a.Next() {
			if a.Type() == unix.IFLA_GROUP && a.Uint32() == deleteGroup {
				indexes = append(indexes, int(binary.NativeEndian.Uint32(m.Data[4:])))
			}
		}
		if err := a.Err(); err != nil {
			return nil, err
		}
	}
	return indexes, nil
}
