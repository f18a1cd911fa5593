package lab

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
)

// indented indents what is written to it, whole lines at a time.
type indented struct{ w io.Writer }

func (i indented) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if _, err := i.w.Write(append([]byte("    "), line...)); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// lines collects what is written to it, for readers that wait for a line.
type lines struct {
	mu      sync.Mutex
	text    string
	closed  bool
	changed chan struct{}
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

func (l *lines) Write(b []byte) (int, error) {
	l.update(func() { l.text += string(b) })
	return len(b), nil
}

// Close says that no more is written.
func (l *lines) Close() error {
	l.update(func() { l.closed = true })
	return nil
}

func (l *lines) update(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// await returns the first line that contains the words, or "" if none comes.
func (l *lines) await(ctx context.Context, words string) string {
	for {
		l.mu.Lock()
		text, closed, changed := l.text, l.closed, l.changed
		l.mu.Unlock()
		for line := range strings.Lines(text) {
			if strings.Contains(line, words) {
				return strings.TrimRight(line, "\n")
			}
		}
		if closed {
			return ""
		}
		select {
		case <-ctx.Done():
			return ""
		case <-changed:
		}
	}
}
