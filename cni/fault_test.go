package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// request is a call as the plugin makes it.
func (b *bed) request(command string, p pod, args, extra string) *wire.Request {
	return &wire.Request{
		Command: command, ContainerID: p.id, IfName: "eth0", Args: args, NetNS: "/the/pod",
		Config: json.RawMessage(`{"name":"k8s-pod-network","cniVersion":"1.0.0"` + extra + `}`),
	}
}

func podArgs(p pod) string { return "K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + p.name }

// call has the server handle a call, without a socket.
func (b *bed) call(r *wire.Request, ns int) error {
	b.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns))
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	_, err = b.srv.handle(b.t.Context(), r, f)
	return err
}

// interrupt makes an ADD up to a step, as an agent leaves it that is killed there.
func (b *bed) interrupt(p pod, step string) {
	b.t.Helper()
	r, err := ParseRequest(b.request("ADD", p, podArgs(p), ""))
	if err != nil {
		b.t.Fatal(err)
	}
	rec := &Record{
		ID: r.ID, State: Adding, Handle: r.Handle(), Namespace: "default", Pod: p.name,
		Interface: HostInterface("cali", "default", p.name), MTU: 1500,
	}
	put(b.t, b.recs, rec)
	if step == "record" {
		return
	}
	w, err := b.srv.assign(b.t.Context(), r, &Pod{}, rec)
	if err != nil {
		b.t.Fatal(err)
	}
	if step == "addresses" {
		return
	}
	n, err := openNamespaces(b.ns, b.h, p.ns)
	if err != nil {
		b.t.Fatal(err)
	}
	defer n.close()
	if err := w.apply(n, b.srv.step); err != nil {
		b.t.Fatal(err)
	}
	if step == "device" {
		return
	}
	rec.State = Attached
	put(b.t, b.recs, rec)
	if step == "attached" {
		return
	}
	rec.State = Releasing // a DEL that was cut short
	put(b.t, b.recs, rec)
}

func TestWhatAKilledAgentLeavesIsTakenAway(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"record", "addresses", "device", "attached", "releasing"} {
		for _, next := range []string{"restart", "DEL before anything else", "ADD again"} {
			t.Run(step+", "+next, func(t *testing.T) {
				b := newBed(t)
				p := b.pod("web", "c1")
				b.interrupt(p, step)
				b.stop()
				switch next {
				case "restart":
					b.start()
					if step == "attached" {
						b.del(p) // it was answered, or the runtime will clean up
					}
				case "DEL before anything else":
					b.prepare()
					if err := b.call(b.request("DEL", p, podArgs(p), ""), p.ns); err != nil {
						t.Error(err)
					}
				case "ADD again":
					b.start()
					b.add(p)
					b.del(p)
				}
				b.nothingLeft()
			})
		}
	}
}

func TestADelWithoutArgumentsWaitsForTheAdd(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.plane.gate = make(chan struct{})
	p := b.pod("web", "c1")
	added, deleted := make(chan error, 1), make(chan error, 1)
	go func() { added <- b.call(b.request("ADD", p, podArgs(p), ""), p.ns) }()
	b.wait("the pod is wired", func() bool {
		rec := b.recs.Get(dataplane.AttachmentID{ContainerID: "c1", IfName: "eth0"})
		return rec != nil && rec.State == Attached
	})
	go func() { deleted <- b.call(b.request("DEL", p, "", ""), p.ns) }()
	b.wait("the DEL waits, or is done", func() bool {
		b.srv.pods.mu.Lock()
		defer b.srv.pods.mu.Unlock()
		l := b.srv.pods.m["c1:eth0"]
		return l != nil && l.users == 2 || len(deleted) > 0
	})
	close(b.plane.gate)
	if err := <-added; err != nil {
		t.Errorf("ADD: %v", err)
	}
	if err := <-deleted; err != nil {
		t.Errorf("DEL: %v", err)
	}
	b.nothingLeft()
}

func TestAnAddThatNobodyWaitsForIsUndone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.plane.gate = make(chan struct{}) // never opened
	p := b.pod("web", "c1")
	c, err := net.Dial("unix", b.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text, err := json.Marshal(b.request("ADD", p, podArgs(p), `,"policy_setup_timeout_seconds":600`))
	if err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.ns))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix(text, rights(ns), nil); err != nil {
		t.Fatal(err)
	}
	b.wait("the pod is wired", func() bool { return len(b.left()) > 3 })
	c.Close()
	b.nothingLeft()
}

func TestServerAnswersWhatItCannotRead(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, text := range []string{"hello", `{"command":1}`, `{"command":"ADD","containerID":"../../c","ifName":"eth0","config":{}}`, "null\n"} {
		c, err := net.Dial("unix", b.socket())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		var resp wire.Response
		if err := json.NewDecoder(c).Decode(&resp); err != nil || resp.Error == nil || resp.Error.Msg == "" {
			t.Errorf("%s: got %+v, %v; want an error", text, resp, err)
		}
		c.Close()
	}
	b.nothingLeft()
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, c := range []struct {
		name, args, extra string
		ns                int
		code              uint
		says              string
	}{
		{"the node's own namespace", podArgs(p), "", b.ns, wire.CodeEnvironment, "the node's own network namespace"},
		{"no namespace at all", podArgs(p), "", int(file.Fd()), wire.CodeFailed, "network namespace"},
		{"another node's name", podArgs(p), `,"nodename":"n2"`, p.ns, wire.CodeConfig, `nodename is "n2", and this node is "n1"`},
		{"namespace that is a path", "K8S_POD_NAMESPACE=../../x;K8S_POD_NAME=a", "", p.ns, wire.CodeEnvironment, `K8S_POD_NAMESPACE="../../x"`},
		{"pod that is a path", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=a/b", "", p.ns, wire.CodeEnvironment, `K8S_POD_NAME="a/b"`},
		{"long name", "K8S_POD_NAME=" + strings.Repeat("a", 300), "", p.ns, wire.CodeEnvironment, "K8S_POD_NAME"},
		{"MTU that no device has", podArgs(p), `,"mtu":1`, p.ns, wire.CodeFailed, "make veth pair"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := b.call(b.request("ADD", p, c.args, c.extra), c.ns)
			var e *wire.Error
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error with %q", err, c.says)
			} else if errors.As(err, &e) && e.Code != c.code {
				t.Errorf("code %d, want %d", e.Code, c.code)
			}
		})
	}
	err = netlink.Do(b.ns, func() error {
		links, err := os.ReadFile("/proc/thread-self/net/dev")
		if strings.Contains(string(links), "eth0") {
			t.Error("the node's own namespace was wired")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b.nothingLeft()
}

func TestADelSucceedsWhateverTheConfigurationSays(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	for _, extra := range []string{`,"ipam":{"type":"host-local"}`, `,"mtu":"big"`, `,"name":"a/b"`} {
		if err := b.call(b.request("ADD", p, podArgs(p), extra), p.ns); err == nil {
			t.Errorf("%s: ADD succeeds", extra)
		}
		if err := b.call(b.request("DEL", p, podArgs(p), extra), p.ns); err != nil {
			t.Errorf("%s: DEL after the ADD that failed: %v", extra, err)
		}
		b.nothingLeft()
		b.add(p)
		if err := b.call(b.request("DEL", p, podArgs(p), extra), p.ns); err != nil {
			t.Errorf("%s: DEL: %v", extra, err)
		}
		b.nothingLeft()
	}
}

func TestASecondInterfaceIsRefusedAndTheFirstStays(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	b.add(p)
	second := b.request("ADD", p, podArgs(p), "")
	second.IfName = "net1"
	if err := b.call(second, p.ns); err == nil || !strings.Contains(err.Error(), "the interface eth0 of this network already") {
		t.Errorf("got %v", err)
	}
	second.Command = "DEL"
	if err := b.call(second, p.ns); err != nil {
		t.Error(err)
	}
	if err := b.call(b.request("CHECK", p, podArgs(p), ""), p.ns); err != nil {
		t.Errorf("the first: %v", err)
	}
	b.del(p)
	b.nothingLeft()
}

func TestIPv6IsTurnedOnInTheSandbox(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	for _, conf := range []string{"all", "default"} {
		if err := netlink.SetSysctls(p.ns, netlink.Sysctl{Name: "net/ipv6/conf/" + conf + "/disable_ipv6", Value: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := addrs(b.add(p)); len(got) != 2 {
		t.Errorf("addresses %v", got)
	}
	b.del(p)
	b.nothingLeft()
}

func TestCheckFindsADeviceThatIsDown(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	b.add(p)
	l, err := b.h.LinkByName(string(HostInterface("cali", "default", "web")))
	if err == nil {
		err = b.h.LinkSetDown(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := b.call(b.request("CHECK", p, podArgs(p), ""), p.ns); err == nil || !strings.Contains(err.Error(), "it is down") {
		t.Errorf("got %v", err)
	}
	b.del(p)
	b.nothingLeft()
}

func TestGCWithoutAListDetachesNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.pod("web", "c1")
	b.add(p)
	gc := b.request("GC", pod{}, "", "")
	if err := b.call(gc, p.ns); err == nil {
		t.Error("no error")
	}
	if err := b.call(b.request("CHECK", p, podArgs(p), ""), p.ns); err != nil {
		t.Error(err)
	}
	gc.Config = json.RawMessage(`{"name":"k8s-pod-network","cni.dev/valid-attachments":[]}`)
	if err := b.call(gc, p.ns); err != nil {
		t.Error(err)
	}
	b.nothingLeft()
}

func TestAddSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.stop()
	b.prepare()
	b.srv.open.Store(false)
	p := b.pod("web", "c1")
	for _, why := range []string{"", "etcd: no answer"} {
		b.srv.cfg.Trouble = func() string { return why }
		err := b.call(b.request("ADD", p, podArgs(p), ""), p.ns)
		var e *wire.Error
		if !errors.As(err, &e) || e.Code != wire.CodeTryAgain || !strings.Contains(e.Msg, "starting") || !strings.Contains(e.Msg, why) {
			t.Errorf("got %v", err)
		}
	}
}

func TestJournalKeepsWhatItCannotReadAndSweepsWhatIsAbandoned(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.stop()
	old, fresh, odd := filepath.Join(b.journal(), ".c1-eth0.tmp1"), filepath.Join(b.journal(), ".c2-eth0.tmp2"), filepath.Join(b.journal(), "c3-eth0")
	if err := os.MkdirAll(b.journal(), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{old, fresh, odd} {
		if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-2*abandoned)); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.wait("the abandoned file is gone", func() bool { _, err := os.Stat(old); return err != nil })
	for _, name := range []string{fresh, odd} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

func rights(f *os.File) []byte { return syscall.UnixRights(int(f.Fd())) }
