package lab

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

//go:embed demo/*.yaml
var demoFiles embed.FS

// demo tells the story and counts what it checked.
type demo struct {
	out            io.Writer
	lab            *Client
	options        Options
	checks, failed int
}

// Demo makes a lab, tells in it the story of pods and policies, each step checked by real
// packets, and takes the lab down, whatever happens.
func Demo(ctx context.Context, name string, o Options, out io.Writer) (err error) {
	if o.Nodes < 2 {
		return &ExitError{Code: 2, Msg: "--nodes 1: the demo needs two nodes at least"}
	}
	began := time.Now()
	d := &demo{out: out, options: o}
	d.say("A cluster of %d nodes, encapsulation %s, pods from %v.", o.Nodes, o.Encap, o.Pool)
	// A lab of whose demo only a killed process knew would stay for good.
	lifeline, held, err := os.Pipe()
	if err != nil {
		return err
	}
	defer held.Close()
	err = Up(ctx, name, o, indented{out}, lifeline)
	lifeline.Close()
	if err != nil {
		return err
	}
	defer func() {
		// ctx may be what ended the story.
		err = errors.Join(err, Down(context.WithoutCancel(ctx), name, indented{out}))
	}()
	if d.lab, err = NewClient(name); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{d.pods, d.routes, d.flows, d.packets, d.deny, d.allow, d.open} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("the demo stops here: %w", err)
		}
	}
	fmt.Fprintf(out, "\n%d checks, %d failed, in %.1f s.\n", d.checks, d.failed, time.Since(began).Seconds())
	if d.failed > 0 {
		return &ExitError{Code: 1}
	}
	return nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, "\n"+format+"\n", args...) }

// check counts a check and prints how it came out.
func (d *demo) check(ok bool, format string, args ...any) {
	d.checks++
	mark := "ok   "
	if !ok {
		d.failed++
		mark = "FAIL "
	}
	fmt.Fprintf(d.out, "  %s %s\n", mark, fmt.Sprintf(format, args...))
}

func (d *demo) pods(ctx context.Context) error {
	d.say("Three pods, through the CNI plugin: address, route and policy stand when `run` returns.")
	for i, name := range []string{"busybox01", "busybox02", "busybox03"} {
		r := RunRequest{
			Pod:    PodName{"default", name},
			Node:   nodeName(min(i+1, d.options.Nodes)),
			Labels: map[string]string{"run": name},
		}
		p, err := d.lab.Run(ctx, r)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.out, "  %s on %s has %s\n", name, p.Node, joined(p.Addrs))
		inside := len(p.Addrs) > 0 && d.options.Pool.Contains(p.Addrs[0])
		d.check(inside, "its address is from the pool")
	}
	return nil
}

// routes shows the tables of the two nodes and checks the routes that make them a network.
func (d *demo) routes(ctx context.Context) error {
	for i, node := range []string{"node1", "node2"} {
		d.say("Routes of %s:", node)
		var table bytes.Buffer
		if err := d.lab.Routes(ctx, node, io.MultiWriter(&table, indented{d.out})); err != nil {
			return err
		}
		words, how := d.way(nodeName(2 - i))
		d.check(hasRoute(table.String(), words...), "the other node's block goes %s", how)
		d.check(hasRoute(table.String(), "", "dev cali", "scope link"), "the pod has a route to its own cali interface")
		d.check(hasRoute(table.String(), "blackhole", "proto 80"), "the node's own block is a blackhole under it")
	}
	return nil
}

// way is how a block of the other node is reached: the words of its route, and for people.
func (d *demo) way(other string) (words []string, how string) {
	via := "via " + d.nodeAddr(other)
	switch d.options.Encap {
	case EncapIPIP:
		return []string{"/", via + " ", "dev tunl0 ", "proto 80", "onlink"}, via + " dev tunl0 onlink"
	case EncapVXLAN:
		return []string{"/", "via", "dev vxlan.calico ", "proto 80", "onlink"}, "by vxlan.calico"
	}
	return []string{"/", via + " ", "dev " + nodeDevice + " ", "proto 80"}, via + " dev " + nodeDevice
}

// nodeAddr is the address of a node on the link between the nodes.
func (d *demo) nodeAddr(node string) string {
	net4, _ := plan(d.options)
	for i := 1; i <= d.options.Nodes; i++ {
		if nodeName(i) == node {
			return nth(net4, i+1).Addr().String()
		}
	}
	return ""
}

// hasRoute tells whether some line that is no default route has all the words.
func hasRoute(table string, words ...string) bool {
	for line := range strings.Lines(table) {
		all := !strings.HasPrefix(line, "default")
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// flows checks what holds while there is no policy.
func (d *demo) flows(ctx context.Context) error {
	d.say("No policy: pods on different nodes reach each other.")
	r, _ := d.lab.Ping(ctx, PingRequest{From: "busybox01", To: "busybox02", Count: 3, Default: "default"}, indented{d.out})
	d.check(r.Received == r.Sent && r.Sent > 0, "busybox01 pings busybox02")
	const hops = 2
	ttl := true
	for _, t := range r.TTLs {
		ttl = ttl && t == 64-hops
	}
	d.check(ttl && len(r.TTLs) > 0, "the TTL %v is that of two routed hops", r.TTLs)
	d.reach(ctx, "busybox01", "busybox02", true)
	d.reach(ctx, "busybox03", "busybox02", true)
	return ctx.Err()
}

// reach checks that one pod reaches another by ICMP, TCP and UDP, or does not.
func (d *demo) reach(ctx context.Context, from, to string, want bool) {
	type result struct {
		what string
		err  error
	}
	results := make(chan result, 3)
	go func() {
		_, err := d.lab.Ping(ctx, PingRequest{From: from, To: to, Count: 1, Default: "default"}, io.Discard)
		results <- result{"ping", err}
	}()
	for _, udp := range []bool{false, true} {
		go func() {
			r := ConnectRequest{From: from, To: to + ":80", UDP: udp, Default: "default"}
			results <- result{map[bool]string{false: "TCP", true: "UDP"}[udp], d.lab.Connect(ctx, r, io.Discard)}
		}()
	}
	verb := "reaches"
	if !want {
		verb = "does not reach"
	}
	failed := ""
	for range 3 {
		if r := <-results; (r.err == nil) != want {
			failed += fmt.Sprintf("; %s: %v", r.what, r.err)
		}
	}
	d.check(failed == "", "%s %s %s by ping, TCP and UDP%s", from, verb, to, failed)
}

// packets looks at the link between the nodes while a ping passes.
func (d *demo) packets(ctx context.Context) error {
	d.say("On the link between the nodes, while busybox01 pings busybox02:")
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	seen := newLines()
	go func() {
		d.lab.Capture(ctx, CaptureRequest{Node: "node1"}, seen)
		seen.Close()
	}()
	seen.await(ctx, "listening")
	go d.lab.Ping(ctx, PingRequest{From: "busybox01", To: "busybox02", Count: 5, Default: "default"}, io.Discard)
	line := seen.await(ctx, "echo request")
	if line == "" {
		d.check(false, "an echo request passes")
		return nil
	}
	fmt.Fprintln(d.out, "   ", line)
	outer := d.nodeAddr("node1") + " > " + d.nodeAddr("node2") + " "
	switch d.options.Encap {
	case EncapIPIP:
		d.check(strings.HasPrefix(line, outer+"protocol 4 IPIP: "), "it travels from node to node in IP, protocol 4")
	case EncapVXLAN:
		d.check(strings.HasPrefix(line, outer+"UDP ") && strings.Contains(line, "> 4789 VXLAN 4096: "),
			"it travels from node to node in UDP to port 4789, VXLAN network 4096")
	default:
		d.check(!strings.HasPrefix(line, outer) && !strings.Contains(line, ": "), "it travels bare")
	}
	return nil
}

func (d *demo) deny(ctx context.Context) error {
	d.say("Default deny: a policy that selects every pod and has no rules.")
	if err := d.apply(ctx, "default-deny.yaml"); err != nil {
		return err
	}
	d.reach(ctx, "busybox01", "busybox02", false)
	d.reach(ctx, "busybox03", "busybox02", false)
	return ctx.Err()
}

func (d *demo) allow(ctx context.Context) error {
	d.say("A second policy lets busybox01 in to busybox02.")
	if err := d.apply(ctx, "allow-busybox01.yaml"); err != nil {
		return err
	}
	d.reach(ctx, "busybox01", "busybox02", true)
	d.reach(ctx, "busybox03", "busybox02", false)
	return ctx.Err()
}

func (d *demo) open(ctx context.Context) error {
	d.say("Both policies deleted: everything flows again.")
	for _, file := range []string{"default-deny.yaml", "allow-busybox01.yaml"} {
		if _, err := d.lab.Delete(ctx, demoManifest(file)); err != nil {
			return err
		}
	}
	d.reach(ctx, "busybox01", "busybox02", true)
	d.reach(ctx, "busybox03", "busybox02", true)
	d.reach(ctx, "busybox02", "busybox03", true)
	return ctx.Err()
}

// apply shows a policy and puts it in force.
func (d *demo) apply(ctx context.Context, file string) error {
	m := demoManifest(file)
	indented{d.out}.Write(m.Text)
	began := time.Now()
	if _, err := d.lab.Apply(ctx, m); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  in force on every node after %d ms\n", time.Since(began).Milliseconds())
	return nil
}

func demoManifest(file string) Manifest {
	text, err := demoFiles.ReadFile("demo/" + file)
	if err != nil {
		panic("lab: " + err.Error()) // embedded
	}
	return Manifest{File: file, Text: text, Namespace: "default", Patience: InForce}
}
