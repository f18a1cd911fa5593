package labtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Trace is what a lab has in the kernel: its processes, and its namespaces by their names
// in /proc, such as net:[4026532281].
type Trace struct {
	Init, Supervisor int // pids
	Namespaces       map[string]bool
}

// Trace finds the processes and namespaces of the lab of that name, which must be up.
func (l *Lab) Trace(t testing.TB, name string) Trace {
	t.Helper()
	tr := Trace{Namespaces: map[string]bool{}}
	dir := strconv.Quote(filepath.Join(l.Base, name)) // as in the JSON that both are given
	for pid, args := range processes() {
		if len(args) != 3 || !strings.Contains(args[2], dir) {
			continue
		}
		switch args[1] {
		case "init":
			tr.Init = pid
		case "supervise":
			tr.Supervisor = pid
		}
	}
	if tr.Init == 0 || tr.Supervisor == 0 {
		t.Fatalf("lab %s has no init or no supervisor", name)
	}
	own := namespacesOf(os.Getpid())
	inside, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", tr.Init))
	for pid := range processes() {
		if ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); ns != inside {
			continue
		}
		for ns := range namespacesOf(pid) {
			if !own[ns] {
				tr.Namespaces[ns] = true
			}
		}
	}
	return tr
}

// Gone waits until nothing of the trace is left, and fails the test if something stays.
func (tr Trace) Gone(t testing.TB) {
	t.Helper()
	var left []string
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		left = nil
		for pid, args := range processes() {
			for ns := range namespacesOf(pid) {
				if tr.Namespaces[ns] {
					left = append(left, fmt.Sprintf("%s of process %d %q", ns, pid, args))
				}
			}
		}
		if left == nil {
			return
		}
	}
	t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
}

// processes returns the arguments of every process.
func processes() map[int][]string {
	entries, _ := os.ReadDir("/proc")
	all := map[int][]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil {
			all[pid] = strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
		}
	}
	return all
}

// namespacesOf returns the namespaces that a process, or one of its threads, is in or
// holds a descriptor of.
func namespacesOf(pid int) map[string]bool {
	all := map[string]bool{}
	for _, glob := range []string{"fd/*", "task/*/ns/*"} {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/%s", pid, glob))
		for _, l := range links {
			to, _ := os.Readlink(l)
			for _, kind := range []string{"net:[", "mnt:[", "pid:[", "uts:[", "ipc:["} {
				if strings.HasPrefix(to, kind) {
					all[to] = true
				}
			}
		}
	}
	return all
}

// PidInside returns the pid of a process inside a node of the lab named lab: its agent.
func (l *Lab) PidInside(t testing.TB, node string) int {
	t.Helper()
	inside, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", l.Trace(t, "lab").Init))
	for pid, args := range processes() {
		if ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); ns != inside || len(args) < 2 || args[1] != "node" {
			continue
		}
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if strings.Contains("\x00"+string(env), "\x00NODENAME="+node+"\x00") {
			return pid
		}
	}
	t.Fatalf("no agent runs in %s", node)
	return 0
}
