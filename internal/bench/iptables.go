package main

import (
	"bytes"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/calicogo/calico/iptables"
	"github.com/calicogo/calico/netlink"
)

// iptablesCommands are what those of the families begin with.
func iptablesCommands(v iptables.Variant) []string {
	return []string{"iptables-" + v.String(), "ip6tables-" + v.String()}
}

// saved is what iptables-save and ipset save tell of a namespace, so that the same objects can be made
// again by the commands alone.
type saved struct {
	variant iptables.Variant
	tables  [2]map[string]map[string][]string // of a family: table, chain, rules; of a chain the first line is its own
	sets    map[string][]string               // of a set the first line is its own
}

// savedIn reads a namespace.
func savedIn(n *netns, v iptables.Variant) *saved {
	s := &saved{variant: v, sets: map[string][]string{}}
	for i, c := range iptablesCommands(v) {
		s.tables[i] = tablesOf(got(n.output(nil, c+"-save")))
	}
	for line := range strings.Lines(got(n.output(nil, "ipset", "save"))) {
		line = strings.TrimSpace(line)
		verb, entry, _ := strings.Cut(line, " ")
		name, _, _ := strings.Cut(entry, " ")
		if verb == "create" {
			entry = line
		}
		s.sets[name] = append(s.sets[name], entry)
	}
	return s
}

func tablesOf(text string) map[string]map[string][]string {
	all := map[string]map[string][]string{}
	var chains map[string][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			chains = map[string][]string{}
			all[line] = chains
		case strings.HasPrefix(line, ":"):
			name, _, _ := strings.Cut(line[1:], " ")
			chains[name] = []string{line}
		case strings.HasPrefix(line, "-A "):
			name, _, _ := strings.Cut(line[3:], " ")
			chains[name] = append(chains[name], line)
		}
	}
	return all
}

// edit is the input of the commands that lead from one to another: of ipset, and of each family's
// iptables-restore; empty: there is nothing to do.
type edit struct {
	variant iptables.Variant
	sets    []byte
	tables  [2][]byte
}

// to returns what leads to another. Sets that go are left.
func (s *saved) to(t *saved) (e edit) {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(t.sets)) {
		have, want := s.sets[name], t.sets[name]
		if have == nil {
			fmt.Fprintln(&b, want[0])
			have = want[:1]
		}
		entries(&b, "add", want[1:], have[1:])
		entries(&b, "del", have[1:], want[1:])
	}
	e.variant, e.sets = t.variant, b.Bytes()
	for i := range s.tables {
		e.tables[i] = chainsBetween(s.tables[i], t.tables[i])
	}
	return e
}

// entries writes the entries of a that are not in b.
func entries(out *bytes.Buffer, verb string, a, b []string) {
	have := make(map[string]bool, len(b))
	for _, x := range b {
		have[x] = true
	}
	for _, x := range a {
		if !have[x] {
			fmt.Fprintln(out, verb, x)
		}
	}
}

// chainsBetween writes the chains that differ, whole.
func chainsBetween(from, to map[string]map[string][]string) []byte {
	var b bytes.Buffer
	for _, table := range slices.Sorted(maps.Keys(to)) {
		var chains, rules, gone []string
		for _, name := range slices.Sorted(maps.Keys(to[table])) {
			if list := to[table][name]; !slices.Equal(list, from[table][name]) {
				chains, rules = append(chains, list[0]), append(rules, list[1:]...)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(from[table])) {
			if to[table][name] == nil {
				chains, gone = append(chains, ":"+name+" - [0:0]"), append(gone, "-X "+name)
			}
		}
		if all := slices.Concat([]string{table}, chains, rules, gone, []string{"COMMIT"}); len(all) > 2 {
			fmt.Fprintln(&b, strings.Join(all, "\n"))
		}
	}
	return b.Bytes()
}

// commit runs ipset restore and then iptables-restore of each family, once, of what there is to do.
func (e *edit) commit(n *netns) {
	if len(e.sets) > 0 {
		got(n.output(e.sets, "ipset", "-exist", "restore"))
	}
	for i, c := range iptablesCommands(e.variant) {
		if len(e.tables[i]) > 0 {
			got(n.output(e.tables[i], c+"-restore", "--noflush"))
		}
	}
}

// output runs a command of the system in the namespace.
func (n *netns) output(in []byte, name string, args ...string) (string, error) {
	var out, stderr bytes.Buffer
	cmd := exec.Command("/usr/sbin/"+name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &stderr
	if err := netlink.Do(int(n.Fd()), cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, &stderr)
	}
	return out.String(), nil
}
