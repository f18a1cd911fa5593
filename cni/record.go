package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// State is how far an attachment has come.
type State string

const (
	// Adding: an address may have been taken. Found at start, it is a pending DEL.
	Adding State = "adding"
	// Attached: the pod is wired.
	Attached State = "attached"
	// Releasing: the pod is gone, its address not yet given back.
	Releasing State = "releasing"
)

// Record is what a node remembers of an attachment.
type Record struct {
	ID        dataplane.AttachmentID `json:"id"`
	State     State                  `json:"state"`
	Handle    string                 `json:"handle"`
	Namespace string                 `json:"namespace,omitempty"`
	Pod       string                 `json:"pod,omitempty"`
	Interface dataplane.Interface    `json:"interface,omitempty"`
	MAC       string                 `json:"mac,omitempty"`
	Addrs     []netip.Addr           `json:"addrs,omitempty"`
	MTU       int                    `json:"mtu,omitempty"`
	// Endpoint is the WorkloadEndpoint as committed, with its revision.
	Endpoint *api.WorkloadEndpoint `json:"endpoint,omitempty"`
	// Where the record was made: after a reboot, or in another network namespace, what
	// it tells of is gone.
	BootID string `json:"bootID"`
	NetNS  uint64 `json:"netns"` // SO_NETNS_COOKIE
}

// Attachment is what the agent needs to know; nil unless the pod is wired.
func (r *Record) Attachment() *dataplane.Attachment {
	if r.State != Attached {
		return nil
	}
	return &dataplane.Attachment{ID: r.ID, Interface: r.Interface, MAC: r.MAC, Addrs: r.Addrs, Endpoint: r.Endpoint}
}

// Records holds one file an attachment. A record is in its file before anything is done
// that relies on it. It is safe for concurrent use.
//
// Files are not fsynced, for nothing relies on what a power failure can take:
//
//   - A process that is killed loses nothing: what was written and renamed is the kernel's.
//   - A machine that goes down takes all pods with it. Of the records of another boot, each
//     is a pending DEL, which does what [Server.Sweep] does too without any record: it gives
//     back the addresses that the datastore attributes to this node's pods and that no
//     device here has, and deletes their endpoints. The runtime's own DEL of the dead
//     sandbox finds the address by its handle.
//   - An address is free when its block in the datastore says so, never because a record is
//     missing: a lost record keeps an address taken until then, and gives none out twice.
//   - A record that comes back, for its removal was lost, is a DEL of a container that is
//     dead and whose ID no other bears: it releases by that ID, and finds nothing.
//   - What a power failure tears is known for it by the boot that wrote it: see load.
//
// What is fsynced is the file that names the boot, once each boot.
type Records struct {
	dir    string
	bootID string
	netns  uint64
	files  keyLocks // by name: a slow disk holds up nobody but who waits for that file

	mu   sync.Mutex // guards what follows, never while a file is written
	all  map[dataplane.AttachmentID]*Record
	told map[dataplane.AttachmentID]bool // whom the subscriber takes for attached
	bad  []error
	torn []string // files that a power failure tore, removed
	feed func(dataplane.AttachmentID, *dataplane.Attachment)
	// interrupted: an earlier process ended in the middle of an ADD or DEL.
	interrupted bool
}

// OpenRecords reads the records of directory dir, which it makes. Records of another boot
// or of another network namespace than hostNS become Releasing. A file that cannot be read
// is left in place and reported by [Records.Bad].
func OpenRecords(dir string, hostNS int) (*Records, error) {
	r := &Records{dir: dir, all: map[dataplane.AttachmentID]*Record{}, told: map[dataplane.AttachmentID]bool{}, feed: func(dataplane.AttachmentID, *dataplane.Attachment) {}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("CNI records: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("CNI records: boot id: %w", err)
	}
	r.bootID = strings.TrimSpace(string(boot))
	if r.netns, err = netnsCookie(hostNS); err != nil {
		return nil, fmt.Errorf("CNI records: network namespace: %w", err)
	}
	return r, r.load()
}

// bootFile names the boot whose agent wrote last.
const bootFile = ".boot"

// load reads the records. Where the last agent was another boot's, those that cannot be
// read were torn when the machine went down: the pods that they stood for are gone, and
// what they held is found without them.
func (r *Records) load() error {
	marker := filepath.Join(r.dir, bootFile)
	last, _ := os.ReadFile(marker) // none: nothing is known of when files were written
	rebooted := len(last) > 0 && string(last) != r.bootID
	r.interrupted = rebooted
	if err := r.read(rebooted); err != nil {
		return err
	}
	if string(last) == r.bootID {
		return nil
	}
	if err := writeSynced(marker, []byte(r.bootID)); err != nil { // a full disk: pods may be deleted
		os.Remove(marker)
		r.bad = append(r.bad, fmt.Errorf("CNI records: note the boot: %w", err))
	}
	return nil
}

func (r *Records) read(rebooted bool) error {
	names, err := filepath.Glob(filepath.Join(r.dir, "*.json"))
	if err != nil {
		return err
	}
	for _, name := range names {
		rec, err := readRecord(name)
		if err != nil && rebooted && os.Remove(name) == nil {
			r.torn = append(r.torn, name)
			continue
		}
		if err != nil {
			r.bad = append(r.bad, err)
			continue
		}
		if rec, err = r.rename(name, rec); err != nil {
			return err
		}
		r.interrupted = r.interrupted || rec.State != Attached
		if rec.State == Adding || rec.BootID != r.bootID || rec.NetNS != r.netns {
			rec.State = Releasing
		}
		r.all[rec.ID] = rec
	}
	leftovers, _ := filepath.Glob(filepath.Join(r.dir, ".tmp-*")) // the pattern is well-formed
	for _, name := range leftovers {
		os.Remove(name)
	}
	return nil
}

// rename gives a record's file the name that it has today. If there is one of that name
// already it is the newer, and what it says holds.
func (r *Records) rename(name string, rec *Record) (*Record, error) {
	now := filepath.Join(r.dir, fileName(rec.ID))
	if name == now {
		return rec, nil
	}
	newer, err := readRecord(now)
	if err == nil {
		return newer, os.Remove(name)
	}
	if err := os.Rename(name, now); err != nil {
		return nil, fmt.Errorf("CNI records: %w", err)
	}
	return rec, nil
}

func readRecord(name string) (*Record, error) {
	b, err := os.ReadFile(name)
	var rec Record
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if base := filepath.Base(name); err == nil && base != fileName(rec.ID) && base != oldFileName(rec.ID) {
		err = errors.New("its name does not fit its content")
	}
	if err != nil {
		return nil, fmt.Errorf("CNI record %s cannot be read, and the pod it stands for is not known: %w", name, err)
	}
	return &rec, nil
}

// netnsCookie is a number that no other namespace of this boot has or had.
func netnsCookie(ns int) (cookie uint64, err error) {
	err = netlink.Do(ns, func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		cookie, err = unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	return cookie, err
}

func fileName(id dataplane.AttachmentID) string {
	return wire.FileName(id.ContainerID, id.IfName) + ".json"
}

// oldFileName is what earlier versions called the file; a-b and c had the name of a and b-c.
func oldFileName(id dataplane.AttachmentID) string {
	return id.ContainerID + "-" + id.IfName + ".json"
}

// Bad lists the files that could not be read.
func (r *Records) Bad() []error { return r.bad }

// Log logs them.
func (r *Records) Log(log *slog.Logger) {
	for _, err := range r.bad {
		log.Error(err.Error())
	}
	if len(r.torn) > 0 {
		log.Warn("CNI records were torn when the machine went down, and removed; what their pods held is given back", "files", r.torn)
	}
}

// Subscribe has f called with every attachment there is, and then with each change, in
// order; nil means that it is gone. f must not call Records.
func (r *Records) Subscribe(f func(dataplane.AttachmentID, *dataplane.Attachment)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.feed = f
	for id, rec := range r.all {
		at := rec.Attachment()
		if at != nil {
			f(id, at)
		}
		r.setTold(id, at != nil)
	}
}

// Get returns a copy of the record; nil if there is none.
func (r *Records) Get(id dataplane.AttachmentID) *Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.all[id]; rec != nil {
		c := *rec
		return &c
	}
	return nil
}

// Of lists the records that use a host interface.
func (r *Records) Of(i dataplane.Interface) []*Record {
	return r.list(func(rec *Record) bool { return rec.Interface == i })
}

// Pending lists the records whose addresses are still to be given back.
func (r *Records) Pending() []*Record {
	return r.list(func(rec *Record) bool { return rec.State == Releasing })
}

// All lists every record.
func (r *Records) All() []*Record { return r.list(func(*Record) bool { return true }) }

func (r *Records) list(want func(*Record) bool) []*Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	var some []*Record
	for _, rec := range r.all {
		if want(rec) {
			c := *rec
			some = append(some, &c)
		}
	}
	return some
}

// Put writes a record and tells the subscriber.
func (r *Records) Put(rec *Record) error {
	if err := r.Note(rec); err != nil {
		return err
	}
	r.Tell(rec.ID)
	return nil
}

// Note writes a record; [Records.Tell] tells the subscriber later.
func (r *Records) Note(rec *Record) error {
	rec.BootID, rec.NetNS = r.bootID, r.netns
	defer r.files.lock(fileName(rec.ID))()
	if err := r.write(rec); err != nil {
		return err
	}
	c := *rec
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[rec.ID] = &c
	return nil
}

// Tell tells the subscriber of a record as it is, if there is news.
func (r *Records) Tell(id dataplane.AttachmentID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var at *dataplane.Attachment
	if rec := r.all[id]; rec != nil {
		at = rec.Attachment()
	}
	if at != nil || r.told[id] {
		r.feed(id, at)
	}
	r.setTold(id, at != nil)
}

// setTold notes whether the subscriber takes a record for attached.
func (r *Records) setTold(id dataplane.AttachmentID, attached bool) {
	if attached {
		r.told[id] = true
	} else {
		delete(r.told, id)
	}
}

// Restore writes the files that somebody removed, whose records this process still has.
// It returns how many.
func (r *Records) Restore() (n int, err error) {
	for _, rec := range r.All() {
		restored, errOne := r.restore(rec.ID)
		err = errors.Join(err, errOne)
		if restored {
			n++
		}
	}
	return n, err
}

func (r *Records) restore(id dataplane.AttachmentID) (bool, error) {
	defer r.files.lock(fileName(id))()
	now := r.Get(id)
	_, missing := os.Lstat(filepath.Join(r.dir, fileName(id)))
	if now == nil || !errors.Is(missing, fs.ErrNotExist) {
		return false, nil
	}
	return true, r.write(now)
}

// write puts a record into its file. The directory is made again where it was removed: a
// pod must not fail for it.
func (r *Records) write(rec *Record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	path := filepath.Join(r.dir, fileName(rec.ID))
	err = writeFile(path, b)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(r.dir, 0o700); err == nil {
			err = writeFile(path, b)
		}
	}
	if err != nil {
		return fmt.Errorf("CNI record of %s: %w", rec.ID.ContainerID, err)
	}
	return nil
}

// Remove deletes a record and tells the subscriber. That there is none is no error.
func (r *Records) Remove(id dataplane.AttachmentID) error {
	defer r.files.lock(fileName(id))()
	err := os.Remove(filepath.Join(r.dir, fileName(id)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("CNI record of %s: %w", id.ContainerID, err)
	}
	r.mu.Lock()
	delete(r.all, id)
	r.mu.Unlock()
	r.Tell(id)
	return nil
}

// writeFile writes a file whole: whoever reads it, after any death of this process, finds
// what it was or what it is. The caller holds the file's lock.
func writeFile(path string, b []byte) error {
	tmp := filepath.Join(filepath.Dir(path), ".tmp-"+filepath.Base(path))
	err := os.WriteFile(tmp, b, 0o600)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// writeSynced writes a file whole and onto the disk.
func writeSynced(path string, b []byte) error {
	if err := writeFile(path, b); err != nil {
		return err
	}
	for _, name := range []string{path, filepath.Dir(path)} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
