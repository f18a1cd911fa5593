package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/tools/txtar"
	"rsc.io/script"
	"rsc.io/script/scripttest"

	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/lab"
	"github.com/calicogo/calico/lab/labtest"
)

// TestScripts runs testdata/*.txtar, each in a lab of its own. The commands of `calico
// lab` are commands of the scripts, and these as well:
//
//	calicoctl ARGS...       calicoctl with the lab's datastore
//	code N COMMAND ARGS...  a command of `calico lab` that must end with exit code N
//	allow, deny, reject ARGS...  send --expect arrived, dropped or rejected
//	pods run|rm N           makes or removes pods p1 … pN, several at a time; the
//	                        addresses of those made must be unique
//	clean NODE...           nothing of a pod is left on the nodes
//	forge FROM ...          sends a packet in a packet, see forge
//	repeat N COMMAND ...    runs a command N times, one of `calico lab` or calicoctl
//	until PATTERN COMMAND ...  runs a command until it prints what matches
//	needs PROGRAM...        the test is skipped if one is absent; where CI=true it fails
//	addr VAR [NAMESPACE/]POD  VAR becomes the pod's IPv4 address, VAR6 its IPv6 address
func TestScripts(t *testing.T) {
	for _, file := range scripts(t, "testdata/*.txtar") {
		t.Run(scriptName(file), func(t *testing.T) {
			t.Parallel()
			runScript(t, file)
		})
	}
}

// policyBackends are those that the scripts of testdata/policy run on, and between which
// TestPolicyChurn switches: LAB_BACKENDS, with commas, or the two that differ in the kernel.
var policyBackends = backends(os.Getenv("LAB_BACKENDS"))

func backends(text string) []string {
	if text == "" {
		return []string{lab.BackendNFT, lab.BackendIptables}
	}
	return strings.Split(text, ",")
}

// TestPolicyScripts runs testdata/policy/*.txtar on every backend. Each is the documentation
// of what policy can say about one thing.
func TestPolicyScripts(t *testing.T) {
	for _, backend := range policyBackends {
		for _, file := range scripts(t, "testdata/policy/*.txtar") {
			t.Run(backend+"/"+scriptName(file), func(t *testing.T) {
				t.Parallel()
				requireBackend(t, backend)
				runScript(t, file, "--backend", backend)
			})
		}
	}
}

// TestKernelLog runs testdata/vm/*.txtar. The kernel's log has lines of network namespaces other
// than the first only where that is asked for, as hack/vm does in its virtual machine.
func TestKernelLog(t *testing.T) {
	const all = "/proc/sys/net/netfilter/nf_log_all_netns"
	if b, _ := os.ReadFile(all); strings.TrimSpace(string(b)) != "1" {
		t.Skipf("%s is not 1: `make vm` runs this", all)
	}
	for _, file := range scripts(t, "testdata/vm/*.txtar") {
		t.Run(scriptName(file), func(t *testing.T) { runScript(t, file) })
	}
}

// backendTools are the programs without which there is no backend.
var backendTools = map[string][]string{
	lab.BackendIptables:       {"iptables-nft-restore", "ipset"},
	lab.BackendIptablesLegacy: {"iptables-legacy-restore", "ipset"},
}

func requireBackend(t *testing.T, backend string) {
	for _, tool := range backendTools[backend] {
		nstest.RequireTool(t, tool)
	}
}

func scripts(t *testing.T, pattern string) []string {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts in " + pattern)
	}
	return files
}

func scriptName(file string) string { return strings.TrimSuffix(filepath.Base(file), ".txtar") }

// runScript runs a script, of which `up` has these flags as well.
func runScript(t *testing.T, file string, up ...string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l := labtest.New(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	state, err := script.NewState(ctx, t.TempDir(), l.Environ())
	if err != nil {
		t.Fatal(err)
	}
	if err := state.ExtractFiles(archive); err != nil {
		t.Fatal(err)
	}
	engine := &script.Engine{Cmds: commands(t, l), Conds: scripttest.DefaultConds(), Quiet: !testing.Verbose()}
	engine.Cmds["up"] = labCommand("up", func(s *script.State, args []string) *exec.Cmd {
		return l.Command(s.Context(), slices.Concat([]string{"up"}, up, args)...)
	})
	var log strings.Builder
	err = engine.Execute(state, file, bufio.NewReader(bytes.NewReader(archive.Comment)), &log)
	err = errors.Join(err, state.CloseAndWait(&log))
	if err != nil || testing.Verbose() {
		t.Log("\n" + log.String())
	}
	if err != nil {
		t.Error(err)
	}
}

func commands(t *testing.T, l *labtest.Lab) map[string]script.Cmd {
	cmds := scripttest.DefaultCmds()
	for _, verb := range []string{
		"down", "run", "rm", "exec", "ping", "connect", "send", "apply", "delete", "configure", "routes", "status", "env",
		"node", "etcd", "probe",
	} {
		cmds[verb] = labCommand(verb, func(s *script.State, args []string) *exec.Cmd {
			return l.Command(s.Context(), append([]string{verb}, args...)...)
		})
	}
	for verb, fate := range map[string]lab.Fate{"allow": lab.Arrived, "deny": lab.Dropped, "reject": lab.Rejected} {
		cmds[verb] = labCommand(verb, func(s *script.State, args []string) *exec.Cmd {
			return l.Command(s.Context(), append([]string{"send", "--expect", string(fate)}, args...)...)
		})
	}
	for _, verb := range []string{"capture", "log", "flow"} {
		cmds[verb] = listenCommand(l, verb)
	}
	cmds["calicoctl"] = labCommand("calicoctl", func(s *script.State, args []string) *exec.Cmd {
		return calicoctl(l, s, args)
	})
	cmds["code"] = simple("code", "N COMMAND ARGS...", func(s *script.State, args []string) (string, error) { return code(l, s, args) })
	cmds["pods"] = simple("pods", "run|rm N", func(s *script.State, args []string) (string, error) { return pods(l, s, args) })
	cmds["needs"] = simple("needs", "PROGRAM...", func(_ *script.State, args []string) (string, error) {
		for _, tool := range args {
			nstest.RequireTool(t, tool)
		}
		return "", nil
	})
	cmds["addr"] = simple("addr", "VAR POD", func(s *script.State, args []string) (string, error) { return "", addr(l, s, args) })
	cmds["clean"] = simple("clean", "NODE...", func(s *script.State, args []string) (string, error) { return "", clean(l, s, args) })
	cmds["forge"] = simple("forge", "FROM OUTER-SOURCE OUTER-DESTINATION INNER-SOURCE INNER-DESTINATION", func(s *script.State, args []string) (string, error) { return "", forge(l, s, args) })
	cmds["until"] = simple("until", "PATTERN COMMAND ARGS...", func(s *script.State, args []string) (string, error) { return until(l, s, args) })
	cmds["repeat"] = simple("repeat", "N COMMAND ARGS...", func(s *script.State, args []string) (string, error) { return repeat(l, s, args) })
	return cmds
}

// labCommand is a script command that runs a program, and may do so in the background.
func labCommand(name string, make func(*script.State, []string) *exec.Cmd) script.Cmd {
	usage := script.CmdUsage{Summary: "run " + name, Args: "[args...]", Async: true}
	return script.Command(usage, func(s *script.State, args ...string) (script.WaitFunc, error) {
		var stdout, stderr strings.Builder
		cmd := make(s, args)
		cmd.Dir = s.Getwd()
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return func(*script.State) (string, string, error) {
			err := cmd.Wait()
			return stdout.String(), stderr.String(), err
		}, nil
	})
}

// listenCommand is a script command that says in a first line when it listens, or is open, and
// returns then; it prints what comes after.
func listenCommand(l *labtest.Lab, verb string) script.Cmd {
	usage := script.CmdUsage{Summary: "run " + verb, Args: "[args...]", Async: true}
	return script.Command(usage, func(s *script.State, args ...string) (script.WaitFunc, error) {
		var stderr strings.Builder
		cmd := l.Command(s.Context(), append([]string{verb}, args...)...)
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		lines := bufio.NewReader(out)
		_, listening := lines.ReadString('\n')
		return func(*script.State) (string, string, error) {
			rest, err := io.ReadAll(lines)
			return string(rest), stderr.String(), errors.Join(listening, err, cmd.Wait())
		}, nil
	})
}

// simple is a script command that is a function, which returns standard output.
func simple(name, args string, f func(*script.State, []string) (string, error)) script.Cmd {
	return script.Command(script.CmdUsage{Summary: name, Args: args}, func(s *script.State, args ...string) (script.WaitFunc, error) {
		out, err := f(s, args)
		return func(*script.State) (string, string, error) { return out, "", err }, nil
	})
}

// code runs a command of which the exit code is told. Its standard error becomes standard
// output, and must be one line.
func code(l *labtest.Lab, s *script.State, args []string) (string, error) {
	if len(args) < 2 {
		return "", script.ErrUsage
	}
	cmd := l.Command(s.Context(), args[1:]...)
	cmd.Dir = s.Getwd()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.Run()
	said := stderr.String()
	switch {
	case strconv.Itoa(cmd.ProcessState.ExitCode()) != args[0]:
		return said, fmt.Errorf("exit code %d, want %s: %s", cmd.ProcessState.ExitCode(), args[0], said)
	case strings.Count(said, "\n") != 1:
		return said, fmt.Errorf("want one line, not\n%s", said)
	}
	return said, nil
}

func pods(l *labtest.Lab, s *script.State, args []string) (string, error) {
	if len(args) != 2 {
		return "", script.ErrUsage
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return "", script.ErrUsage
	}
	out := make([]string, n)
	group, ctx := errgroup.WithContext(s.Context())
	group.SetLimit(4)
	for i := range n {
		group.Go(func() error {
			b, err := l.Command(ctx, args[0], fmt.Sprintf("p%d", i+1)).CombinedOutput()
			out[i] = string(b)
			if err != nil {
				return fmt.Errorf("%s p%d: %w: %s", args[0], i+1, err, b)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	return strings.Join(out, ""), unique(out)
}

// addr takes the addresses of a pod from `calico lab status`.
func addr(l *labtest.Lab, s *script.State, args []string) error {
	if len(args) != 2 {
		return script.ErrUsage
	}
	out, err := l.Command(s.Context(), "status").Output()
	if err != nil {
		return err
	}
	pod := args[1]
	if !strings.Contains(pod, "/") {
		pod = "default/" + pod
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != pod {
			continue
		}
		v4, v6, _ := strings.Cut(f[2], ",")
		return errors.Join(s.Setenv(args[0], v4), s.Setenv(args[0]+"6", v6))
	}
	return fmt.Errorf("no pod %s", pod)
}

// unique checks that no two lines of `run` have the same addresses.
func unique(lines []string) error {
	owner := map[string]string{}
	for _, line := range lines {
		_, list, ok := strings.Cut(strings.TrimSpace(line), "[")
		if !ok {
			continue
		}
		for a := range strings.FieldsSeq(strings.TrimRight(list, "]")) {
			if o, twice := owner[a]; twice {
				return fmt.Errorf("%s is given twice: %s and %s", a, o, line)
			}
			owner[a] = line
		}
	}
	return nil
}

// clean checks that nothing of a pod is left: links, routes and neighbours of nodes,
// records of the agents, endpoints and addresses in the datastore.
func clean(l *labtest.Lab, s *script.State, nodes []string) error {
	for _, node := range nodes {
		for _, check := range []struct{ what, command string }{
			{"links", "ls /sys/class/net | grep ^cali"},
			{"routes", "cat /proc/net/route /proc/net/ipv6_route | grep -w 'cali[0-9a-f]*'"},
			{"records", "find /var/lib/calico/cni -type f ! -name .boot"},
		} {
			out, _ := l.Command(s.Context(), "exec", node, "--", "sh", "-c", check.command).CombinedOutput()
			if len(out) > 0 {
				return fmt.Errorf("%s left on %s:\n%s", check.what, node, out)
			}
		}
	}
	return datastoreClean(s.Context(), l)
}
