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
// in /proc, such as net:[4026532281]. Such a name may be given again later.
type Trace struct {
	Init, Supervisor int // pids
	Processes        map[int]string
	Namespaces       map[string]bool

	mounts int // namespaces bound to files, as the test's mount namespace sees them
}

// Trace finds the processes and namespaces of the lab of that name, which must be up.
func (l *Lab) Trace(t testing.TB, name string) Trace {
	t.Helper()
	tr := Trace{Processes: map[int]string{}, Namespaces: map[string]bool{}, mounts: boundNamespaces()}
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
		started := startTime(pid)
		if started == ended {
			continue // meanwhile
		}
		tr.Processes[pid] = started
		for ns := range namespacesOf(pid) {
			if !own[ns] {
				tr.Namespaces[ns] = true
			}
		}
	}
	return tr
}

// Gone waits until all processes of the lab have ended, with which its namespaces do, and
// fails the test if one stays or if a namespace is bound to a file that was not before.
func (tr Trace) Gone(t testing.TB) {
	t.Helper()
	var left []string
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		left = nil
		for pid, started := range tr.Processes {
			if startTime(pid) == started {
				left = append(left, fmt.Sprintf("process %d %q %s", pid, processes()[pid], doing(pid)))
			}
		}
		if left == nil {
			break
		}
	}
	if left != nil {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	if n := boundNamespaces(); n > tr.mounts {
		t.Errorf("left behind: %d namespaces bound to files", n-tr.mounts)
	}
}

// ended is the start time of a process that is no more.
const ended = "ended"

// startTime tells processes of one pid apart: field 22 of /proc/PID/stat, proc(5).
func startTime(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ended
	}
	_, rest, _ := strings.Cut(string(b), ") ") // of the command name, which may hold blanks
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return ended
	}
	return fields[19]
}

// doing tells what a process that should have ended waits for: its state (proc(5)), where
// in the kernel, and whose child it is.
func doing(pid int) string {
	var words []string
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "State:") || strings.HasPrefix(line, "PPid:") || strings.HasPrefix(line, "Threads:") {
			words = append(words, strings.Join(strings.Fields(line), " "))
		}
	}
	where, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
	return strings.Join(append(words, string(where)), ", ")
}

func boundNamespaces() int {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	return strings.Count(string(b), " - nsfs ")
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
