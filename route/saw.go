package route

import (
	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Saw takes in a notification of the kernel: that a route is there now, or no more. device is the
// name of its link. It reports whether the next Sync has something to mend. The driver's own changes
// and other people's routes are no news.
func (d *Driver) Saw(r *vnl.Route, device string, deleted bool) bool {
	if r.Table != unix.RT_TABLE_MAIN {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	at, e := read(r, device)
	old, have := d.kernel.ours[at]
	if !d.kernel.isOurs(e) {
		if _, wanted := d.table.Want(at); !have && !wanted {
			return false
		}
		d.table.Resync() // it took our place, or left it
		return true
	}
	if !deleted {
		f := finder{d.kernel.h, map[hop]bool{}}
		e = f.normal(e, r.LinkIndex, d.kernel.ownsDevice)
	} else if have && old.device == "" {
		e.device = ""
	}
	if have && old != e { // beside ours, or in its place: it takes a look
		d.table.Resync()
		return true
	}
	if deleted {
		delete(d.kernel.ours, at)
	} else {
		d.kernel.ours[at] = e
	}
	return d.table.Saw(at, e, !deleted)
}

// Owns tells whether routes on the link of that name are the driver's.
func (d *Driver) Owns(link string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kernel.ownsDevice(link)
}

// SawLink takes in that a link of the driver's has come or is up, or with lost that it is neither any
// more: the kernel takes the IPv4 routes of a link that goes down away without a word. It
// reports whether the next Sync has something to do.
func (d *Driver) SawLink(name string, lost bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !lost {
		return d.table.Pending() > 0
	}
	return d.table.Lost(func(k key, e entry) bool {
		if e.device == name {
			delete(d.kernel.ours, k)
		}
		return e.device == name
	})
}
