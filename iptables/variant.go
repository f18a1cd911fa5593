package iptables

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// Variant is which of the kernel's two holders of iptables' rules is used.
type Variant uint8

const (
	Auto   Variant = iota // the one that holds other people's rules
	Legacy                // ip_tables
	NFT                   // nf_tables, by iptables-nft
)

func (v Variant) String() string { return [...]string{"auto", "legacy", "nft"}[v] }

// ParseVariant reads FelixConfiguration's iptablesBackend.
func ParseVariant(s string) (Variant, error) {
	for _, v := range []Variant{Auto, Legacy, NFT} {
		if strings.EqualFold(s, v.String()) {
			return v, nil
		}
	}
	return Auto, fmt.Errorf("IptablesBackend %q: must be Auto, Legacy or NFT", s)
}

// binaries are the programs of a variant, by family. There may be none for IPv6.
type binaries struct {
	restore, save map[dataplane.Family]string
	randomFully   bool
}

var commands = map[dataplane.Family]string{dataplane.IPv4: "iptables", dataplane.IPv6: "ip6tables"}

// binariesOf finds the programs of a variant; nil: there are none.
func binariesOf(ctx context.Context, v Variant) *binaries {
	b := &binaries{restore: map[dataplane.Family]string{}, save: map[dataplane.Family]string{}}
	for f, name := range commands {
		for _, base := range []string{name + "-" + v.String(), name} {
			restore, save := find(base+"-restore"), find(base+"-save")
			if restore == "" || save == "" {
				continue
			}
			is, major, minor, patch := versionOf(ctx, restore)
			if is != v {
				continue
			}
			b.restore[f], b.save[f] = restore, save
			b.randomFully = major > 1 || minor > 6 || minor == 6 && patch >= 2
			break
		}
	}
	if b.restore[dataplane.IPv4] == "" {
		return nil
	}
	return b
}

var version = regexp.MustCompile(`v(\d+)\.(\d+)\.(\d+)(?: \((\w+)\))?`)

// versionOf asks a program what it is. Those from before 1.8 do not say that they are legacy.
func versionOf(ctx context.Context, path string) (v Variant, major, minor, patch int) {
	var out []byte
	c := command{ns: netlink.Current, path: path, args: []string{"--version"}}
	if err := c.run(ctx, func(r io.Reader) (err error) { out, err = io.ReadAll(io.LimitReader(r, 4096)); return err }); err != nil {
		return Auto, 0, 0, 0
	}
	return parseVersion(string(out))
}

func parseVersion(s string) (v Variant, major, minor, patch int) {
	m := version.FindStringSubmatch(s)
	if m == nil {
		return Auto, 0, 0, 0
	}
	major, _ = strconv.Atoi(m[1])
	minor, _ = strconv.Atoi(m[2])
	patch, _ = strconv.Atoi(m[3])
	if m[4] == "nf_tables" {
		return NFT, major, minor, patch
	}
	return Legacy, major, minor, patch
}

var errNoBinaries = errors.New("iptables: iptables-restore or iptables-save is not on PATH; install the package iptables")

// tools are the programs that a Driver uses.
type tools struct {
	found map[Variant]*binaries // of variants that are there
	use   Variant
	ipset string
}

// findTools looks for everything, and decides which variant to use.
func (d *Driver) findTools(ctx context.Context) (*tools, error) {
	t := &tools{found: map[Variant]*binaries{}, ipset: find("ipset")}
	for _, v := range []Variant{NFT, Legacy} {
		if b := binariesOf(ctx, v); b != nil {
			t.found[v] = b
		}
	}
	switch {
	case len(t.found) == 0:
		return t, errNoBinaries
	case t.ipset == "":
		return t, errors.New("iptables: ipset is not on PATH; install the package ipset")
	case d.cfg.Variant != Auto:
		if t.use = d.cfg.Variant; t.found[t.use] == nil {
			return t, fmt.Errorf("IptablesBackend %v: there is no iptables-%v-restore on PATH; install it or set Auto", t.use, t.use)
		}
		return t, nil
	}
	t.use = d.detect(ctx, t)
	return t, nil
}

// detect returns the variant that holds other people's rules: kubelet's or kube-proxy's, or else more
// of them.
func (d *Driver) detect(ctx context.Context, t *tools) Variant {
	if len(t.found) == 1 {
		for v := range t.found {
			return v
		}
	}
	legacy, legacyHint, _ := d.foreign(ctx, t, Legacy)
	rules, hint, err := d.foreign(ctx, t, NFT)
	switch {
	case err != nil:
		return Legacy // the kernel has no nf_tables
	case hint != legacyHint:
		return map[bool]Variant{true: NFT, false: Legacy}[hint]
	case legacy > rules:
		return Legacy
	}
	return NFT
}

// foreign counts the rules of others that a variant holds; hint: among its chains are those by which
// kubelet and kube-proxy say which variant they use.
func (d *Driver) foreign(ctx context.Context, t *tools, v Variant) (rules int, hint bool, err error) {
	for f := range commands {
		if t.found[v].save[f] == "" || v == Legacy && !d.legacyInUse(f) {
			continue
		}
		c := command{ns: d.ns, path: t.found[v].save[f]}
		err := c.run(ctx, func(r io.Reader) error {
			in := newLines(r)
			for in.next() {
				line := in.line
				switch {
				case bytes.HasPrefix(line, []byte(":KUBE-IPTABLES-HINT ")), bytes.HasPrefix(line, []byte(":KUBE-KUBELET-CANARY ")):
					hint = true
				case bytes.HasPrefix(line, []byte("-A ")) && !bytes.Contains(line, []byte(chainPrefix)):
					rules++
				}
			}
			return in.err
		})
		if err != nil {
			return 0, false, err
		}
	}
	return rules, hint, nil
}

// legacyInUse tells whether the namespace has tables of ip_tables'. To ask iptables-legacy-save would make
// them.
func (d *Driver) legacyInUse(f dataplane.Family) bool {
	name := map[dataplane.Family]string{dataplane.IPv4: "ip_tables_names", dataplane.IPv6: "ip6_tables_names"}[f]
	return len(d.procNet(name)) > 0
}

// absent says that a family is not held for want of its programs. It is an error if pods may speak it; else
// something to know, for then they do so only if the node lets them.
func (d *Driver) absent(f *family) error {
	what := fmt.Sprintf("%s-%v-restore is not on PATH", commands[f.is], d.tools.use)
	if f.compiler.Settings().IPv6 {
		return fmt.Errorf("%s: IPv6 is not governed by policy; install the package iptables whole, or set ipv6Support to false", what)
	}
	d.warnings[commands[f.is]] = []string{what + ": nothing but the devices' own setting keeps pods from speaking IPv6"}
	return nil
}

// hasIPv6 tells whether the kernel speaks IPv6 in the namespace.
func (d *Driver) hasIPv6() bool { return d.procNet("if_inet6") != nil }

// procNet reads a file of the namespace's /proc/net; nil: there is none.
func (d *Driver) procNet(name string) (out []byte) {
	netlink.Do(d.ns, func() (err error) {
		out, err = os.ReadFile("/proc/thread-self/net/" + name)
		return err
	})
	return out
}

// lines reads lines. What is longer than any that iptables writes is cut.
type lines struct {
	r    *bufio.Reader
	line []byte // until next is called again; without what ends it
	err  error
}

const maxLine = 64 << 10

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, maxLine)} }

// next reads a line; false: there is none, or err says why.
func (l *lines) next() bool {
	line, err := l.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		line = bytes.Clone(line)
	}
	for err == bufio.ErrBufferFull {
		_, err = l.r.ReadSlice('\n')
	}
	if err != nil && err != io.EOF {
		l.err = err
		return false
	}
	l.line = bytes.TrimRight(line, "\n")
	return err == nil || len(line) > 0
}
