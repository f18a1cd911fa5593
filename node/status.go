package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/calicogo/calico/felix"
	"github.com/calicogo/calico/store"
)

// Status is what a node says of itself on its status socket.
type Status struct {
	Node       string         `json:"node"`
	Ready      bool           `json:"ready"`    // ADD is open, and the kernel takes what it brings: pods can be started
	InSync     bool           `json:"inSync"`   // the datastore's snapshot has been seen
	Revision   store.Revision `json:"revision"` // newest datastore revision that the kernel holds
	Conditions []Condition    `json:"conditions"`
}

// Condition is something that a person may want to know.
type Condition struct {
	Type    string `json:"type"`
	OK      bool   `json:"ok"`
	Message string `json:"message,omitempty"`
}

// board collects what the parts of a node report.
type board struct {
	node  string
	agent *felix.Agent

	mu      sync.Mutex
	ready   bool
	notes   map[string]string // by part; absent: nothing to say
	changed chan struct{}
}

func newBoard(node string, agent *felix.Agent) *board {
	return &board{node: node, agent: agent, notes: map[string]string{}, changed: make(chan struct{})}
}

func (b *board) setReady() { b.update(func() { b.ready = true }) }

// note records what is wrong with a part; nil: nothing. It returns whether that is news.
func (b *board) note(part string, err error) (news bool) {
	msg := ""
	if err != nil {
		msg = err.Error()
	}
	b.mu.Lock()
	news = b.notes[part] != msg
	b.mu.Unlock()
	if news {
		b.update(func() {
			delete(b.notes, part)
			if msg != "" {
				b.notes[part] = msg
			}
		})
	}
	return news
}

func (b *board) update(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// status returns the present status and two channels, either of which tells of a change.
func (b *board) status() (Status, <-chan struct{}, <-chan struct{}) {
	fs, agentChanged := b.agent.Status()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Status{Node: b.node, Ready: b.ready && fs.Stuck == nil, InSync: fs.InSync, Revision: fs.Revision, Conditions: []Condition{}}
	for part, msg := range b.notes {
		s.Conditions = append(s.Conditions, Condition{Type: part, Message: msg})
	}
	for _, p := range fs.Problems {
		s.Conditions = append(s.Conditions, Condition{Type: p.Part, Message: p.Message})
	}
	slices.SortFunc(s.Conditions, func(x, y Condition) int {
		return cmp.Or(cmp.Compare(x.Type, y.Type), cmp.Compare(x.Message, y.Message))
	})
	return s, agentChanged, b.changed
}

// trouble says in a line what stands in the way; empty if nothing is known of.
func (b *board) trouble() string {
	s, _, _ := b.status()
	return s.trouble()
}

func (s *Status) trouble() string {
	var all []string
	for _, c := range s.Conditions {
		all = append(all, c.Type+": "+c.Message)
	}
	return strings.Join(all, "; ")
}

// unable says why pods cannot be given an address now; nil: nothing is known of.
func (b *board) unable() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if msg := b.notes["datastore"]; msg != "" {
		return errors.New("the datastore does not answer: " + msg)
	}
	return nil
}

// limited says why the kernel takes no new pods, in which case those there may lack part of
// their network; nil: nothing is known of.
func (b *board) limited() error {
	fs, _ := b.agent.Status()
	return fs.Stuck
}

// wait returns the status once it is good enough, or as it is when ctx ends.
func (b *board) wait(ctx context.Context, enough func(Status) bool) Status {
	for {
		s, agentChanged, changed := b.status()
		if enough(s) {
			return s
		}
		select {
		case <-agentChanged:
		case <-changed:
		case <-ctx.Done():
			return s
		}
	}
}

// handler answers GET /status, at once, or with revision=N&wait=30s when the kernel
// holds that revision.
func (b *board) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		s, _, _ := b.status()
		if q := r.URL.Query(); q.Has("revision") {
			rev, err := strconv.ParseInt(q.Get("revision"), 10, 64)
			wait, errWait := time.ParseDuration(cmp.Or(q.Get("wait"), "30s"))
			if err = errors.Join(err, errWait); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			ctx, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			s = b.wait(ctx, func(s Status) bool { return s.Ready && s.Revision >= rev })
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // the reader is gone: nobody to tell
	})
	return mux
}

// health answers the probes that manifests ask: alive while the process answers, ready
// while pods can be started. Who is not says why.
func (b *board) health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /liveness", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readiness", func(w http.ResponseWriter, _ *http.Request) {
		if s, _, _ := b.status(); !s.Ready {
			http.Error(w, strings.TrimSuffix("not ready: "+s.trouble(), ": "), http.StatusServiceUnavailable)
		}
	})
	return mux
}

// serve serves h on l until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(l); ctx.Err() == nil {
		return err
	}
	return ctx.Err()
}

// listenUnix listens on a socket that only root may use, in place of one that a dead
// process left. The lock is held, so no live one is displaced.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
