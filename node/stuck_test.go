package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

// hideIptables hides the programs of iptables from this process, which has mounts of its own.
func hideIptables() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin") {
		for _, pattern := range []string{"iptables*", "ip6tables*", "xtables*", "ipset*"} {
			paths, _ := filepath.Glob(filepath.Join(dir, pattern))
			for _, path := range paths {
				if st, err := os.Stat(path); err != nil || st.Mode()&0o111 == 0 {
					continue // hidden by another name
				}
				if err := unix.Mount("/dev/null", path, "", unix.MS_BIND, ""); err != nil {
					return fmt.Errorf("hide %s: %w", path, err)
				}
			}
		}
	}
	return nil
}

// get asks one of the agent's addresses.
func (m *machine) get(network, addr, path string) (code int, body string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (c net.Conn, err error) {
		err = netlink.Do(m.ns, func() (err error) { c, err = net.Dial(network, addr); return err })
		return c, err
	}}}
	resp, err := client.Get("http://node" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func (m *machine) status() (s Status) {
	_, body := m.get("unix", filepath.Join(m.dir, "run/node.sock"), "/status")
	_ = json.Unmarshal([]byte(body), &s) // the agent may not be there yet
	return s
}

// A node whose kernel does not take the rules is not ready for pods, and says why, wherever it is asked.
func TestNodeThatCannotHoldRules(t *testing.T) {
	t.Parallel() // it waits most of its time
	nstest.RequireTool(t, "nft")
	m := newMachineWithout(t, "iptables")
	m.ready()
	if code, body := m.get("tcp", "127.0.0.1:9099", "/readiness"); code != http.StatusOK {
		t.Errorf("readiness: %d %s", code, body)
	}
	m.must("ADD", "p1", "c1")
	release := takeTables(t, m.ns)
	const why = "table calico of IPv4 belongs to another process"
	m.wait("the node is not ready", func() bool { return !m.status().Ready })
	if s := m.status(); s.Ready || len(s.Conditions) != 1 || s.Conditions[0].OK || !strings.Contains(s.Conditions[0].Message, why) {
		t.Errorf("status %+v", s)
	}
	if code, body := m.get("tcp", "127.0.0.1:9099", "/readiness"); code != http.StatusServiceUnavailable || !strings.HasPrefix(body, "not ready: ") || !strings.Contains(body, why) {
		t.Errorf("readiness: %d %s", code, body)
	}
	if code, body := m.get("tcp", "127.0.0.1:9099", "/liveness"); code != http.StatusOK {
		t.Errorf("liveness: %d %s", code, body)
	}
	if err := m.cni("STATUS", "", ""); err == nil || !strings.Contains(err.Error(), `"code":51`) || !strings.Contains(err.Error(), why) {
		t.Errorf("STATUS: %v", err)
	}
	m.must("DEL", "p1", "c1")
	if err := m.cni("ADD", "p2", "c2"); err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("ADD: %v", err)
	}
	release()
	m.ready()
	if code, body := m.get("tcp", "127.0.0.1:9099", "/readiness"); code != http.StatusOK {
		t.Errorf("readiness: %d %s", code, body)
	}
	m.must("ADD", "p2", "c2")
	m.must("DEL", "p2", "c2")
}

// takeTables has another process replace our tables by its own, which nobody else can change, until release.
func takeTables(t *testing.T, ns int) (release func()) {
	t.Helper()
	cmd := exec.Command("nft", "-i")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = netlink.Do(ns, cmd.Start)
	}
	if err != nil {
		t.Fatal(err)
	}
	release = func() {
		in.Close()
		_ = cmd.Wait() // it may say so that it was ended
	}
	t.Cleanup(release)
	var line string
	for _, f := range []string{"ip", "ip6"} {
		line += fmt.Sprintf("add table %[1]s calico; delete table %[1]s calico; add table %[1]s calico { flags owner; }; ", f)
	}
	if _, err := io.WriteString(in, line+"\n"); err != nil {
		t.Fatal(err)
	}
	return release
}
