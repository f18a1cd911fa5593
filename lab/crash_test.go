package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/calicogo/calico/lab"
	"github.com/calicogo/calico/lab/labtest"
)

// longTime is how long the tests here go on: LAB_LONG, such as 5m, or as long as CI has.
func longTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("LAB_LONG")
	if text == "" {
		return 15 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("LAB_LONG=%s: want a time such as 1m", text)
	}
	return d
}

// town is a lab whose nodes have pods of every kind, of which who may speak to whom is
// known: rows of pods, one of each row on each node.
type town struct {
	*labtest.Lab
	nodes  int
	events events
}

// events are what was done to a lab, and when, for messages.
type events struct {
	mu   sync.Mutex
	list []event
}

type event struct {
	at   int64 // CLOCK_MONOTONIC
	what string
}

// rows of pods, with their flags.
var rows = map[string][]string{
	"plain1": nil, "plain2": nil, "plain3": nil, "plain4": nil,
	"in1": {"-l", "guard=ingress"}, "in2": {"-l", "guard=ingress"},
	"out1": {"-l", "guard=egress"}, "out2": {"-l", "guard=egress"},
	"blue":   {"-l", "team=blue"},
	"locked": {"-n", "locked"},
}

// townPolicies guard the rows: some by ingress, some by egress, and a namespace that
// denies everything both ways.
const townPolicies = `
apiVersion: v1
kind: Namespace
metadata: {name: locked}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: locked}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: only-from-blue, namespace: default}
spec:
  selector: guard == 'ingress'
  types: [Ingress]
  ingress:
  - {action: Allow, source: {selector: team == 'blue'}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: only-to-blue, namespace: default}
spec:
  selector: guard == 'egress'
  types: [Egress]
  egress:
  - {action: Allow, destination: {selector: team == 'blue'}}
`

// newTown makes a lab of so many nodes with ten pods on each.
func newTown(t *testing.T, nodes int, encap string) *town {
	t.Helper()
	v := &town{Lab: labtest.New(t), nodes: nodes}
	v.Must(t, "up", "--nodes", fmt.Sprint(nodes), "--encap", encap)
	v.apply(t, "apply", townPolicies)
	var mu sync.Mutex
	var made []string
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(4)
	for n := 1; n <= nodes; n++ {
		for row, flags := range rows {
			group.Go(func() error {
				args := append([]string{"run", fmt.Sprintf("%s-%d", row, n), "--node", fmt.Sprintf("node%d", n)}, flags...)
				out, err := v.Command(ctx, args...).CombinedOutput()
				if err != nil {
					return fmt.Errorf("%v: %w: %s", args, err, out)
				}
				mu.Lock()
				defer mu.Unlock()
				made = append(made, string(out))
				return nil
			})
		}
	}
	if err := errors.Join(group.Wait(), unique(made)); err != nil {
		t.Fatal(err)
	}
	return v
}

// apply applies, or deletes, objects.
func (v *town) apply(t *testing.T, verb, objects string) {
	t.Helper()
	cmd := v.Command(t.Context(), verb, "-f", "-")
	cmd.Stdin = strings.NewReader(objects)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", verb, err, out)
	}
}

// pairs are FROM and TO:PORT of flows within a node and between nodes.
func (v *town) pairs(flows [][3]any) (args []string) {
	for n := range v.nodes {
		for _, f := range flows {
			to := (n + f[2].(int)) % v.nodes
			name := fmt.Sprintf("%v-%d:80", f[1], to+1)
			if f[1] == "locked" {
				name = "locked/" + name
			}
			from := fmt.Sprintf("%v-%d", f[0], n+1)
			if f[0] == "locked" {
				from = "locked/" + from
			}
			args = append(args, from, name)
		}
	}
	return args
}

func (v *town) allowed() []string {
	return v.pairs([][3]any{
		{"plain1", "plain2", 1}, {"plain2", "plain3", 0},
		{"blue", "in1", 1}, {"blue", "in2", 0},
		{"out1", "blue", 2}, {"out2", "blue", 0},
	})
}

func (v *town) denied() []string {
	return v.pairs([][3]any{
		{"plain3", "in1", 1}, {"plain4", "in2", 0},
		{"out1", "plain1", 1}, {"out2", "plain4", 0},
		{"plain1", "locked", 1}, {"locked", "plain2", 2},
	})
}

// note takes down what is about to be done.
func (e *events) note(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event{now(), fmt.Sprintf(format, args...)})
}

// around says which events were nearest before a time.
func (e *events) around(at int64) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.list, func(v event) bool { return v.at > at })
	if i < 0 {
		i = len(e.list)
	}
	var near []string
	for _, v := range e.list[max(0, i-2):i] {
		near = append(near, fmt.Sprintf("%v after %s", time.Duration(at-v.at).Round(time.Millisecond), v.what))
	}
	return strings.Join(near, ", ")
}

func now() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// probes are a running `calico lab probe`.
type probes struct {
	cmd    *exec.Cmd
	out    bytes.Buffer
	stderr bytes.Buffer
	denied bool
	town   *town
}

// start begins to probe, until end.
func (v *town) start(t *testing.T, denied bool, args ...string) *probes {
	t.Helper()
	p := &probes{denied: denied, town: v}
	p.cmd = v.Command(context.WithoutCancel(t.Context()), append([]string{"probe", "-o", "json"}, args...)...)
	if denied {
		p.cmd.Args = append(p.cmd.Args, "--denied")
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	return p
}

// startAll begins to probe all flows of the town.
func (v *town) startAll(t *testing.T) []*probes {
	t.Helper()
	var all []*probes
	for _, udp := range []string{"--udp", "--udp=false"} {
		all = append(all,
			v.start(t, false, append(v.allowed(), "--rate", "5", udp)...),
			v.start(t, true, append(v.denied(), "--rate", "5", udp)...))
	}
	return all
}

// end ends the probing and judges it.
func (p *probes) end(t *testing.T) {
	t.Helper()
	p.cmd.Process.Signal(os.Interrupt)
	err := p.cmd.Wait()
	var results []lab.ProbeResult
	if jsonErr := json.Unmarshal(p.out.Bytes(), &results); jsonErr != nil {
		t.Fatalf("probe: %v: %s%s", err, p.out.Bytes(), p.stderr.Bytes())
	}
	if err != nil {
		t.Errorf("%s", p.stderr.Bytes())
	}
	var sent, answered int
	for _, r := range results {
		sent += r.Sent
		answered += r.Answered
		if r.Sent == 0 {
			t.Errorf("no probe was sent from %s to %s: %s", r.From, r.To, r.Reason)
		}
		p.blame(t, r)
	}
	t.Logf("denied %v: %d probes, %d answered", p.denied, sent, answered)
}

// blame says when probes went wrong.
func (p *probes) blame(t *testing.T, r lab.ProbeResult) {
	t.Helper()
	wrong := func(one lab.Probe) bool { return !p.denied && one.Lost || p.denied && (one.Arrived || one.Answered) }
	var when []string
	for i, one := range r.Probes {
		if wrong(one) && (i == 0 || !wrong(r.Probes[i-1])) {
			when = append(when, p.town.events.around(one.Sent))
		}
	}
	if when != nil {
		t.Errorf("%v: wrong from %d times on, first %v", r, len(when), when[0])
	}
}

// TestAgentsKilled kills every agent, one after another, while pods speak and are kept
// from speaking, come and go, and a policy changes.
func TestAgentsKilled(t *testing.T) {
	t.Parallel()
	for _, encap := range []string{lab.EncapIPIP, lab.EncapVXLAN} { // none has nothing that they have not
		t.Run(encap, func(t *testing.T) {
			t.Parallel()
			v := newTown(t, 5, encap)
			until := time.Now().Add(longTime(t))
			all := v.startAll(t)
			for round := 0; round == 0 || time.Now().Before(until); round++ {
				for n := 1; n <= v.nodes; n++ {
					v.killOne(t, n)
				}
			}
			for _, p := range all {
				p.end(t)
			}
		})
	}
}

// flip denies what is allowed: the pods of the row plain4 speak with nobody.
const flip = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: flip, namespace: default}
spec: {selector: has(flipped), types: [Ingress]}
`

// killOne kills a node's agent. While it is away a pod comes, and a policy that denies it
// what was allowed: when that is in force, none of its new flows passes.
func (v *town) killOne(t *testing.T, n int) {
	t.Helper()
	node, next := fmt.Sprintf("node%d", n), fmt.Sprintf("node%d", n%v.nodes+1)
	v.Must(t, "run", "here", "--node", node, "-l", "flipped=")
	v.events.note("kill %s", node)
	v.Must(t, "node", "kill", node)
	v.Must(t, "run", "there", "--node", next, "-l", "flipped=")
	v.apply(t, "apply", flip)
	v.events.note("flip in force")
	v.Must(t, "probe", "plain4-1", "here:80", "plain4-1", "there:80", "here", "there:80", "there", "here:80",
		"--denied", "--udp", "--rate", "50", "--for", "200ms")
	v.apply(t, "delete", flip)
	v.events.note("flip deleted")
	v.Must(t, "probe", "plain4-1", "here:80", "plain4-1", "there:80", "here", "there:80", "there", "here:80",
		"--udp", "--rate", "50", "--for", "200ms")
	v.Must(t, "rm", "here", "there")
	v.Must(t, "node", "start", node) // it is started: this waits until it is ready
	v.events.note("%s is ready", node)
}

// TestEtcdStopped stops etcd while pods speak: they go on, pods go, none comes, an agent
// ends and starts; when etcd is back everything that was put off is done.
func TestEtcdStopped(t *testing.T) {
	t.Parallel()
	v := newTown(t, 3, "vxlan")
	for n := 1; n <= v.nodes; n++ {
		v.Must(t, "run", fmt.Sprintf("goes-%d", n), "--node", fmt.Sprintf("node%d", n))
	}
	all := v.startAll(t)
	until := time.Now().Add(longTime(t))
	v.events.note("etcd stops")
	v.Must(t, "etcd", "stop")
	if r := v.Run(t, "apply", "-f", os.DevNull); r.Code != 1 {
		t.Errorf("apply without etcd: exit code %d", r.Code)
	}
	v.Must(t, "rm", "goes-1")
	v.events.note("kill node2")
	v.Must(t, "node", "kill", "node2")
	if out := v.Must(t, "node", "start", "node2"); !strings.Contains(out, "etcd is stopped") {
		t.Errorf("start of an agent without etcd says %q", out)
	}
	v.events.note("node2 is up")
	v.Must(t, "rm", "goes-2") // its agent has never seen the datastore
	for refused := 0; refused == 0 || time.Now().Before(until); refused++ {
		r := v.Run(t, "run", "comes", "--node", fmt.Sprintf("node%d", refused%2+1))
		if r.Code != 1 || !strings.Contains(r.Stderr, "CNI error 11") || !strings.Contains(r.Stderr, "datastore") {
			t.Errorf("run without etcd: exit code %d, %q", r.Code, r.Stderr)
		}
	}
	v.Must(t, "rm", "goes-3")
	v.events.note("etcd starts")
	v.Must(t, "etcd", "start")
	for n := 1; n <= v.nodes; n++ {
		v.Must(t, "node", "start", fmt.Sprintf("node%d", n)) // waits until it is ready
	}
	await(t, "the addresses of the deleted pods are given back", func() bool { return !v.remembers(t, "goes", "comes") })
	v.Must(t, "run", "comes", "--node", "node2", "-l", "flipped=")
	v.Must(t, "probe", "plain4-1", "comes:80", "--for", "200ms")
	v.apply(t, "apply", flip)
	v.Must(t, "probe", "plain4-1", "comes:80", "--denied", "--for", "200ms")
	v.apply(t, "delete", flip)
	v.Must(t, "rm", "comes")
	v.quiet(t)
	for _, p := range all {
		p.end(t)
	}
}

// remembers tells whether the datastore has an endpoint, or an address that is held, of
// pods whose names begin so.
func (v *town) remembers(t *testing.T, names ...string) bool {
	t.Helper()
	return datastoreClean(t.Context(), v.Lab, names...) != nil
}

// quiet waits until the agents write nothing to their kernels any more, for a second.
func (v *town) quiet(t *testing.T) {
	t.Helper()
	seen := watchWrites(t, nodeNamespace(t, v.Lab, "node2"))
	count, since := -1, time.Now()
	await(t, "the agent of node2 writes nothing more", func() bool {
		if n := len(seen.list()); n != count {
			count, since = n, time.Now()
		}
		return time.Since(since) > time.Second
	})
	if count > 50 {
		t.Errorf("the agent of node2 wrote much: %v", seen.list())
	}
}
