package cni

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/calicogo/calico/cni/wire"
)

// wantCode fails the test unless err is the plugin's with that code and text.
func wantCode(t *testing.T, err error, code uint, says string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Msg, says) {
		t.Errorf("got %v, want code %d and %q", err, code, says)
	}
}

func TestGCWithoutAnAgentIsNotPutOff(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	b.add(p)
	b.stop()
	err := b.runtimeCNI().GCNetworkList(t.Context(), b.conf("1.1.0", `,"agent_timeout_seconds":0.2`), &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}})
	if err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v", err)
	}
	if files, _ := os.ReadDir(b.journal()); len(files) > 0 {
		for _, f := range files {
			if !strings.HasPrefix(f.Name(), "c1@") { // libcni itself sends DELs for what it has cached
				t.Errorf("journalled: %s", f.Name())
			}
		}
	}
	b.start()
	b.del(p)
	b.nothingLeft()
}

func TestStatusWithoutAnAgent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.stop()
	err := b.runtimeCNI().GetStatusNetworkList(t.Context(), b.conf("1.1.0", `,"agent_timeout_seconds":0.1`))
	wantCode(t, err, wire.CodeNotAvailable, "calico node does not answer")
}

// TestAnAgentThatDiesInACallIsWaitedForAnew: the patience is for finding one, and it was
// spent when the connection broke.
func TestAnAgentThatDiesInACallIsWaitedForAnew(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.stop()
	l, err := net.Listen("unix", b.socket())
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			_, _, _ = wire.Receive(c.(*net.UnixConn))
			time.AfterFunc(1200*time.Millisecond, func() { c.Close(); l.Close() }) // longer than the patience
		}
	}()
	added := make(chan error, 1)
	go func() {
		_, err := b.runtimeCNI().AddNetworkList(t.Context(), b.conf("1.0.0", `,"agent_timeout_seconds":1`), b.runtime(pod{name: "web", id: "c1", ns: b.ns}))
		added <- err
	}()
	err = <-added
	wantCode(t, err, wire.CodeTryAgain, "calico node does not answer")
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls were taken", n)
	}
	if !strings.Contains(err.Error(), "dial") && !strings.Contains(err.Error(), "connect") {
		t.Errorf("got %v: the plugin did not look for the next agent", err)
	}
}

func TestPluginLeavesNoJournalBesideAnAgent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	b.add(p)
	b.del(p)
	if files, _ := filepath.Glob(filepath.Join(b.journal(), "*")); len(files) > 0 {
		t.Errorf("%v", files)
	}
}
