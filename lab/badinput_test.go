package lab_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/calicogo/calico/lab/labtest"
)

// Every bad input is one line that names it, and exit code 1 or 2.
func TestBadInput(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	l.Must(t, up("--nodes", "2")...)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"up --nodes 0 --name x", 2, "--nodes 0: a lab has 1 to 50 nodes"},
		{"up --nodes 51 --name x", 2, "--nodes 51: a lab has 1 to 50 nodes"},
		{"up --nodes three --name x", 2, `invalid argument "three"`},
		{"up --encap ipsec --name x", 2, `--encap "ipsec": want ipip, vxlan or none`},
		{"up --pool 10.10.0.0 --name x", 2, `--pool "10.10.0.0": want a prefix`},
		{"up --pool 10.10.0.1/16 --name x", 2, "did you mean 10.10.0.0/16?"},
		{"up --pool fd00::/64 --name x", 2, "want an IPv4 prefix"},
		{"up --pool6 10.0.0.0/8 --name x", 2, "want an IPv6 prefix"},
		{"up --pool 10.10.0.0/28 --name x", 2, "smaller than one block"},
		{"up --block-size 33 --name x", 2, "--block-size 33: want a prefix length"},
		{"up --pool 0.0.0.0/0 --name x", 2, "--pool 0.0.0.0/0: pods can have no address of 0.0.0.0/8"},
		{"up --pool 127.0.0.0/8 --name x", 2, "no address of 127.0.0.0/8"},
		{"up --pool 239.0.0.0/8 --name x", 2, "no address of 224.0.0.0/3"},
		{"up --pool6 ::/0 --name x", 2, "no address of ::/8"},
		{"up --pool6 fe80::/64 --name x", 2, "no address of fe80::/10"},
		{"up --pool 10.0.0.0/30 --block-size 30 --nodes 5 --name x", 2, "fewer addresses than --nodes 5 need"},
		{"up --name Lab", 2, `lab name "Lab"`},
		{"up here", 2, "usage: calico lab up"},
		{"nosuch", 2, `unknown command "nosuch"`},
		{"status --nosuch", 2, "unknown flag: --nosuch"},
		{"status --name other", 1, `lab "other" is not up: start it with`},
		{"ping a", 2, "usage: calico lab ping"},
		{"ping a b", 1, "no pod default/a"},
		{"ping -n web a b", 1, "no pod web/a"},
		{"ping node1 node3", 1, "no pod default/node3"},
		{"ping node1 A_b", 2, `pod "A_b"`},
		{"ping node1 node2 -c 0", 2, "-c 0: want at least 1"},
		{"ping node1 192.0.2.1", 1, "192.0.2.1"},
		{"connect node1 node2", 2, "want POD:PORT or ADDRESS:PORT"},
		{"connect node1 node2:0", 2, "the port must be 1 to 65535"},
		{"connect node1 node2:81", 1, "connection refused"},
		{"connect node1 ::ffff:172.30.0.3:81", 1, "tcp 172.30.0.3:81 from node1: connection refused"},
		{"connect node1 172.30.0.1:81", 1, "connection refused"},
		{"connect node1 172.30.0.9:81", 1, "tcp 172.30.0.9:81 from node1: no"},
		{"routes node9", 1, `no node "node9": this lab has node1 to node2`},
		{"run", 2, "usage: calico lab run"},
		{"run a b", 2, "usage: calico lab run"},
		{"run a -l x", 2, `label "x": want key=value`},
		{"run a -l x=!!", 2, `label "x=!!": a valid label must`},
		{"run a -l a/b/c=x", 2, `label "a/b/c=x": a valid label key`},
		{"rm a", 1, "no pod default/a"},
		{"exec node1", 2, "usage: calico lab exec"},
		{"exec node1 -- nosuch", 127, `command "nosuch": not found`},
		{"apply", 2, "usage: calico lab apply"},
		{"apply -f nosuch.yaml", 1, "no file nosuch.yaml"},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := l.Run(t, strings.Fields(c.args)...)
			if r.Code != c.code || !strings.Contains(r.Stderr, c.want) || strings.Count(r.Stderr, "\n") != 1 {
				t.Errorf("exit code %d, want %d with %q; printed\n%s", r.Code, c.code, c.want, r.Stderr)
			}
		})
	}
}

// The internal commands do nothing outside of a lab; least of all a supervisor, which
// would make its bridge where it stands.
func TestInternalCommands(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	for _, args := range [][]string{{"init", "x"}, {"init", "{}"}, {"supervise", "x"}, {"supervise", "{}"}} {
		dir := t.TempDir()
		cmd := l.Command(t.Context(), args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET} // whatever it does
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "internal to calico lab") {
			t.Errorf("%v: exit code %d, %q", args, cmd.ProcessState.ExitCode(), out)
		}
		if files, _ := os.ReadDir(dir); len(files) > 0 {
			t.Errorf("%v made %v", args, files)
		}
	}
}

// Directories that are no lab's stay as they are, whatever $CALICO_LAB_DIR is.
func TestForeignDirectoryIsLeftAlone(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	file := filepath.Join(l.Base, "lab", "precious")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{up("--nodes", "1"), {"down"}, {"status"}} {
		if r := l.Run(t, args...); r.Code != 1 || !strings.Contains(r.Stderr, "is not the directory of a lab") {
			t.Errorf("%v: exit code %d, %q", args, r.Code, r.Stderr)
		}
	}
	l.Must(t, "down", "--all")
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

// What the supervisor says when it fails is one line, on a full disk too, where etcd
// panics.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	cmd := exec.Command("sh", "-c", `mount -t tmpfs -o size=64k none "$CALICO_LAB_DIR" && exec calico-lab up --no-agents --nodes 1`)
	cmd.Env = l.Environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Run()
	said := stderr.String()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said, "no space left on device") || strings.Count(said, "\n") != 1 {
		t.Errorf("exit code %d, %q", cmd.ProcessState.ExitCode(), said)
	}
}

func TestNoRoot(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	for _, args := range [][]string{{"up"}, {"status"}, {"down"}} {
		cmd := exec.Command(filepath.Join(l.Bin, "calico-lab"), args...)
		cmd.Env = l.Environ()
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(stderr.String(), "needs root") || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr.String())
		}
	}
}
