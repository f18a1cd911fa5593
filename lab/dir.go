package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is the directory of one lab: lab.sock (control), etcd.sock, etcd/ (its data) and
// the logs. A lab lives as long as its directory is locked. A directory that holds
// something, but not lab.log, is somebody else's: it is left alone.
type Dir string

var labName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

// Base is where the directories of labs are: $CALICO_LAB_DIR or /var/lib/calico-lab.
func Base() string {
	if d := os.Getenv("CALICO_LAB_DIR"); d != "" {
		return d
	}
	return "/var/lib/calico-lab"
}

// DirOf returns the directory of the lab of that name.
func DirOf(name string) (Dir, error) {
	if !labName.MatchString(name) {
		return "", fmt.Errorf("lab name %q: want at most 32 of a-z, 0-9 and -, and a letter or digit at both ends", name)
	}
	base, err := filepath.Abs(Base())
	if err != nil {
		return "", err
	}
	d := Dir(filepath.Join(base, name))
	if n := len(d.etcdSocket()); n > 107 { // sockaddr_un, unix(7)
		return "", fmt.Errorf("%s is %d bytes long, and the path of a socket can have 107: set CALICO_LAB_DIR to a shorter directory", d.etcdSocket(), n)
	}
	return d, nil
}

// Name is the name of the lab.
func (d Dir) Name() string { return filepath.Base(string(d)) }

func (d Dir) controlSocket() string { return filepath.Join(string(d), "lab.sock") }
func (d Dir) etcdSocket() string    { return filepath.Join(string(d), "etcd.sock") }
func (d Dir) etcdData() string      { return filepath.Join(string(d), "etcd") }
func (d Dir) log() string           { return filepath.Join(string(d), "lab.log") }

// NodeLog is the file that holds what a node's agent printed.
func (d Dir) NodeLog(node string) string { return filepath.Join(string(d), node+".log") }

func (d Dir) podLog(p PodName) string {
	return filepath.Join(string(d), p.Namespace+"."+p.Name+".log")
}

// Environ are the variables by which other tools find the lab's datastore.
func (d Dir) Environ() []string {
	return []string{"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=unix://" + d.etcdSocket()}
}

// errRunning says that somebody holds the lock.
var errRunning = errors.New("running")

// lock makes the directory if need be and locks it. The lock lasts while the file, or a
// copy of its descriptor in a child, is open.
func (d Dir) lock() (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(string(d)), 0o755); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		if err := os.Mkdir(string(d), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		f, err := d.lockExisting()
		switch {
		case errors.Is(err, os.ErrNotExist): // removed by a `down` at this very moment
		case errors.Is(err, errRunning) && try < 20: // or a client looks whether a lab lives
			time.Sleep(5 * time.Millisecond)
		case err != nil:
			return nil, err
		default:
			return f, f.Chmod(0o700) // it may have been there: the sockets in it are root's
		}
	}
}

// lockExisting locks the directory if it is there; os.ErrNotExist if not.
func (d Dir) lockExisting() (*os.File, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	f, err := os.Open(string(d))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errRunning
		}
		return nil, fmt.Errorf("lock %s: %w", d, err)
	}
	opened, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if now, err := os.Stat(string(d)); err != nil || !os.SameFile(opened, now) {
		f.Close()
		return nil, os.ErrNotExist
	}
	return f, nil
}

// check refuses a directory that is not a lab's; that there is none is no error.
func (d Dir) check() error {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(entries) > 0 && !d.hasLog() {
		return fmt.Errorf("%s is not the directory of a lab: it has no lab.log; move it away, or set CALICO_LAB_DIR to another place", d)
	}
	return nil
}

func (d Dir) hasLog() bool {
	info, err := os.Lstat(d.log())
	return err == nil && info.Mode().IsRegular()
}

// clear removes what a dead lab left in the directory, the log last: by it the rest is
// known to be a lab's.
func (d Dir) clear() error {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(string(d), e.Name())
		if path == d.log() {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return os.RemoveAll(d.log())
}

// remove removes the directory, and the one above if nothing else is in it.
func (d Dir) remove() error {
	if err := d.clear(); err != nil {
		return err
	}
	if err := os.Remove(string(d)); err != nil {
		return err
	}
	if os.Getenv("CALICO_LAB_DIR") == "" {
		os.Remove(filepath.Dir(string(d))) // fails while other labs are in it, as it should
	}
	return nil
}

// Labs returns the names of the labs that have a directory, dead ones included.
func Labs() ([]string, error) {
	entries, err := os.ReadDir(Base())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && labName.MatchString(e.Name()) && Dir(filepath.Join(Base(), e.Name())).hasLog() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// lastWords returns the line of a log that says why the program ended: where it panicked,
// else the last of its own.
func lastWords(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	last := "it printed nothing"
	for line := range strings.Lines(string(b)) {
		line = plain(strings.TrimSpace(line))
		if line == "" || strings.HasPrefix(line, agentEnded) {
			continue
		}
		what, panicked := strings.CutPrefix(line, "panic: ")
		if !panicked || !strings.Contains(last, what) { // etcd says more before it panics
			last = line
		}
		if panicked {
			break
		}
	}
	return last
}

// plain is a line of etcd's log, which is JSON, as text; others as they are.
func plain(line string) string {
	var entry struct{ Msg, Error string }
	if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg == "" {
		return line
	}
	return strings.TrimSuffix(entry.Msg+": "+entry.Error, ": ")
}
