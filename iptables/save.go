package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/filter"
)

// held is what the kernel has of ours in the tables of a family and variant.
type held struct {
	tables [tables]heldTable
	hidden []string // tables that iptables-nft cannot show, for rules in it that the nft tool made
}

// heldTable is what a table has of ours.
type heldTable struct {
	chains  map[string][]string // bodies of rules, by chain
	jumps   []jump              // rules of the built-in chains that bear our comment
	foreign []reference         // rules of others that lead to chains of ours, or ask our sets
	length  map[string]int      // of the built-in chains: how many rules
}

// reference is a rule of others that uses something of ours.
type reference struct{ where, chain, set string }

const maxSave = 1 << 30 // bytes of what a command may write

var errTooMuch = errors.New("it writes more than 1 GiB")

// readTables reads what a variant holds of ours. Rules of others are not parsed.
func (d *Driver) readTables(ctx context.Context, f dataplane.Family, v Variant, t *tools) (*held, error) {
	h := &held{}
	for i := range h.tables {
		h.tables[i] = heldTable{chains: map[string][]string{}, length: map[string]int{}}
	}
	if v == Legacy && !d.legacyInUse(f) {
		return h, nil
	}
	c := command{ns: d.ns, path: t.found[v].save[f]}
	err := c.run(ctx, func(r io.Reader) error { return h.parse(&capped{r, maxSave}) })
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	d.stats.Reads++
	return h, nil
}

// capped is a reader of at most so many bytes.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooMuch
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

var (
	ourChain   = []byte(chainPrefix)
	ourComment = []byte(commentPrefix)
)

// parse reads what iptables-save writes.
func (h *held) parse(r io.Reader) error {
	var t *heldTable
	in := newLines(r)
	for in.next() {
		line := in.line
		switch {
		case len(line) == 0:
		case line[0] == '#':
			if name, ok := incompatible(line); ok {
				h.hidden = append(h.hidden, name)
			}
		case line[0] == '*':
			t = nil
			if id, ok := tableNamed(string(line[1:])); ok {
				t = &h.tables[id]
			}
		case t == nil:
		case line[0] == ':':
			name, _, _ := bytes.Cut(line[1:], []byte(" "))
			if bytes.HasPrefix(name, ourChain) {
				t.chains[string(name)] = []string{}
			}
		case bytes.HasPrefix(line, []byte("-A ")):
			chain, body, _ := bytes.Cut(line[3:], []byte(" "))
			t.rule(chain, body)
		}
	}
	return in.err
}

// incompatible recognizes how iptables-nft-save says that it leaves a table out.
func incompatible(line []byte) (string, bool) {
	rest, ok := bytes.CutPrefix(line, []byte("# Table `"))
	name, tail, ok2 := bytes.Cut(rest, []byte("'"))
	_, known := tableNamed(string(name))
	return string(name), ok && ok2 && known && bytes.Contains(tail, []byte("incompatible"))
}

// rule takes in a rule.
func (t *heldTable) rule(chain, body []byte) {
	if bytes.HasPrefix(chain, ourChain) {
		t.chains[string(chain)] = append(t.chains[string(chain)], string(body))
		return
	}
	name := string(chain)
	t.length[name]++
	if bytes.Contains(body, ourComment) && builtIn(name) && isOurs(string(body)) {
		t.jumps = append(t.jumps, jump{name, string(body), t.length[name]})
		return
	}
	if !bytes.Contains(body, []byte("cali")) {
		return
	}
	ref := reference{where: name + " " + string(body)}
	words := split(string(body))
	for i, w := range words[:max(len(words)-1, 0)] {
		switch {
		case (w == "-j" || w == "-g") && strings.HasPrefix(words[i+1], chainPrefix):
			ref.chain = words[i+1]
		case w == "--match-set" && isOurSet(words[i+1]):
			ref.set = words[i+1]
		}
	}
	if ref.chain != "" || ref.set != "" {
		t.foreign = append(t.foreign, ref)
	}
}

// isOurs tells whether a rule of a built-in chain has a comment of ours, and not only one that quotes such.
func isOurs(body string) bool {
	words := split(body)
	for i := 1; i < len(words); i++ {
		if words[i-1] == "--comment" && strings.HasPrefix(words[i], commentPrefix) {
			return true
		}
	}
	return false
}

func builtIn(chain string) bool { return slices.Contains(hookNames[:], chain) }

// hashOf returns the hash that a rule bears as its comment, without what it begins with; "": none.
func hashOf(body string) string {
	for rest := body; ; {
		_, after, ok := strings.Cut(rest, "--comment ")
		if !ok {
			return ""
		}
		rest = after
		quoted := strings.TrimPrefix(after, `"`)
		if h, ok := strings.CutPrefix(quoted, commentPrefix); ok {
			end := strings.IndexAny(h, `" `)
			if end < 0 {
				end = len(h)
			}
			return h[:end]
		}
	}
}

// identity is what tells a rule from others: its hash, and the chain of ours that it leads to, for chains
// can be given other names.
func identity(body string) string { return hashOf(body) + wayOf(body) }

// wayOf returns how a rule leads to a chain of ours; empty: it does not.
func wayOf(body string) string {
	for _, way := range [...]string{" -j ", " -g "} {
		if i := strings.LastIndex(body, way); i >= 0 && strings.HasPrefix(body[i+len(way):], chainPrefix) {
			target := body[i+len(way):]
			if end := strings.IndexAny(target, ` "`); end >= 0 {
				target = target[:end]
			}
			return way + target
		}
	}
	return ""
}

func alike(a, b []string) bool {
	return slices.EqualFunc(a, b, func(x, y string) bool { return identity(x) == identity(y) })
}

// split returns the words of a line as iptables-save writes it.
func split(s string) (words []string) {
	var w strings.Builder
	quoted, in := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted && i+1 < len(s):
			i++
			w.WriteByte(s[i])
		case c == '"':
			quoted, in = !quoted, true
		case c == ' ' && !quoted:
			if in {
				words = append(words, w.String())
			}
			w.Reset()
			in = false
		default:
			w.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, w.String())
	}
	return words
}

// heldSet is a set of the kernel's.
type heldSet struct {
	kind    string // its type, its family, and whatever options it has that ours have not
	most    int
	members []string
}

// readSets reads the kernel's sets that are ours.
func (d *Driver) readSets(ctx context.Context, t *tools) (map[string]*heldSet, error) {
	out := map[string]*heldSet{}
	c := command{ns: d.ns, path: t.ipset, args: []string{"save"}}
	err := c.run(ctx, func(r io.Reader) error { return parseSets(&capped{r, maxSave}, out) })
	d.stats.Reads++
	return out, explainSets(err, nil)
}

// parseSets reads what ipset save writes.
func parseSets(r io.Reader, out map[string]*heldSet) error {
	in := newLines(r)
	var name []byte
	var last *heldSet
	for in.next() {
		verb, rest, _ := bytes.Cut(in.line, []byte(" "))
		set, rest, _ := bytes.Cut(rest, []byte(" "))
		switch string(verb) {
		case "create":
			name, last = bytes.Clone(set), nil
			if isOurSet(string(set)) {
				last = parseCreate(string(rest))
				out[string(set)] = last
			}
		case "add":
			if last != nil && bytes.Equal(set, name) {
				last.members = append(last.members, string(rest))
			}
		}
	}
	return in.err
}

// parseCreate reads the type and options of a set.
func parseCreate(s string) *heldSet {
	words := strings.Fields(s)
	h := &heldSet{}
	for i := 0; i < len(words); i++ {
		switch words[i] {
		case "hashsize", "initval", "bucketsize":
			i++
		case "maxelem":
			if i++; i < len(words) {
				h.most, _ = strconv.Atoi(words[i])
			}
		default:
			h.kind += words[i] + " "
		}
	}
	return h
}

// kindOf is what kind must say of a set.
func kindOf(k filter.SetKind, f dataplane.Family) string {
	return parseCreate(strings.TrimPrefix(strings.TrimSpace(create("x", k, f, 1)), "create x ")).kind
}
