package etcdtest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Link is a wire between clients and an etcd, which can be cut and held up.
type Link struct {
	Endpoint string // unix:///PATH, for the clients

	backend string // path of etcd's socket
	accept  net.Listener
	wg      sync.WaitGroup

	mu    sync.Mutex
	cond  *sync.Cond
	cut   bool
	stuck bool
	done  bool
	conns map[net.Conn]bool
}

// NewLink returns a wire to endpoint, a URL of the form unix:///PATH; it ends with the
// test.
func NewLink(t testing.TB, endpoint string) *Link {
	t.Helper()
	dir, err := os.MkdirTemp("", "link")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "wire")
	l := &Link{Endpoint: "unix://" + path, backend: strings.TrimPrefix(endpoint, "unix://"), conns: map[net.Conn]bool{}}
	l.cond = sync.NewCond(&l.mu)
	if l.accept, err = net.Listen("unix", path); err != nil {
		t.Fatal(err)
	}
	l.wg.Go(l.serve)
	t.Cleanup(func() {
		l.accept.Close()
		l.set(func() { l.done, l.cut = true, true })
		l.wg.Wait()
		os.RemoveAll(dir)
	})
	return l
}

// Cut breaks all connections and refuses new ones until Heal.
func (l *Link) Cut() { l.set(func() { l.cut = true }) }

// Stall keeps connections open, new ones too, but holds what is sent until Heal: etcd
// seems to have gone silent.
func (l *Link) Stall() { l.set(func() { l.stuck = true }) }

// Heal undoes Cut and Stall.
func (l *Link) Heal() { l.set(func() { l.cut, l.stuck = false, false }) }

func (l *Link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	if l.cut {
		for c := range l.conns {
			c.Close()
		}
	}
	l.cond.Broadcast()
}

func (l *Link) serve() {
	for {
		client, err := l.accept.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", l.backend)
		if err != nil {
			client.Close()
			continue
		}
		if !l.join(client, server) {
			continue
		}
		l.wg.Go(func() { l.carry(client, server) })
		l.wg.Go(func() { l.carry(server, client) })
	}
}

// join counts the connections in, or closes them if the link is cut.
func (l *Link) join(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		if l.cut {
			c.Close()
		} else {
			l.conns[c] = true
		}
	}
	return !l.cut
}

// carry copies until one end is closed, then closes both.
func (l *Link) carry(to, from net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		l.hold()
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range []net.Conn{to, from} {
		c.Close()
		delete(l.conns, c)
	}
}

// hold waits while the link is stuck.
func (l *Link) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.stuck && !l.done {
		l.cond.Wait()
	}
}
