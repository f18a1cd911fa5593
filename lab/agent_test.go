package lab

import (
	"os"
	"testing"
	"time"

	"github.com/calicogo/calico/internal/nstest"
)

// TestStoppedWhileItStarts: an agent that is stopped at the moment when its process starts
// does not run.
func TestStoppedWhileItStarts(t *testing.T) {
	nstest.RequireRoot(t)
	ns, err := newNamespaces("host", false, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer ns.close()
	log, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	script := t.TempDir() + "/agent"
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	a := &agent{node: &node{name: "n", ns: ns}, path: script, log: log, stopped: true, changed: make(chan struct{})}
	go a.run(t.Context())
	for i := range 100 {
		time.Sleep(5 * time.Millisecond) // it waits to be started
		a.start()
		time.Sleep(time.Duration(i) * 50 * time.Microsecond)
		if err := a.stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
		a.mu.Lock()
		process := a.process
		a.mu.Unlock()
		if process != nil {
			process.Process.Kill()
			t.Fatalf("try %d: it is stopped, and runs", i)
		}
	}
}
