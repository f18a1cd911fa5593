package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rules makes edits. Each table's is one transaction of the kernel's. Where the filter table changes together with
// others, pods open no flow from before the first to after the last, because a packet may meet
// the one as it was and the other as it is. Where filter had nothing of ours it only closes: no guard could
// close more, and flows that another backend allows so far go on. Nor does it take one when other tables only come to know other devices:
// pods come and go in filter, whose dispatch knows the same devices, in one commit.
func (d *Driver) rules(f *family, edits []*tableEdit) error {
	last := len(edits) - 1
	devicesOnly := !slices.ContainsFunc(edits[:max(last, 0)], func(e *tableEdit) bool { return !e.devices() })
	if last > 0 && devicesOnly && edits[last].table == filterTable && edits[last].chainsOnly() {
		if err := d.together(f, edits); err == nil || d.locked {
			return err
		}
	}
	if last < 1 || edits[last].table != filterTable || edits[last].fresh() || devicesOnly {
		return d.restoreAll(f, edits)
	}
	guarded, open, err := d.guard(f, edits[last])
	if err != nil {
		return err
	}
	order := append([]*tableEdit{guarded}, edits[:last]...)
	if open.empty() {
		return d.restoreAll(f, order)
	}
	if err := d.restoreAll(f, order); err != nil {
		return err
	}
	d.grace.beforeOpening()
	if err := d.restore(f, open); err != nil {
		return errors.Join(err, d.takeBack(f, order))
	}
	return nil
}

// guard splits an edit of the filter table in two: after the first all is there, but pods cannot open
// flows; the second lets them.
func (d *Driver) guard(f *family, e *tableEdit) (guarded, open *tableEdit, err error) {
	first, second := f.compiler.Guarded()
	guarded = &tableEdit{table: filterTable, chains: slices.Clone(e.chains), remove: e.remove, add: e.add}
	open = &tableEdit{table: filterTable}
	w := d.renderer(f)
	for key := range second.Chains {
		lowered, err := f.im.low.chain(key, first.Chains[key])
		if err != nil {
			return nil, nil, err
		}
		closed, err := w.rules(filterTable, lowered)
		if err != nil {
			return nil, nil, err
		}
		now, err := w.rules(filterTable, f.im.placed[filterTable][key])
		if err != nil {
			return nil, nil, err
		}
		name := f.im.chainName(key)
		at := slices.IndexFunc(guarded.chains, func(c edit) bool { return c.name == name })
		if at < 0 {
			at = len(guarded.chains)
			guarded.chains = append(guarded.chains, edit{name: name, had: true, has: true, old: now})
		}
		guarded.chains[at].new = closed
		open.chains = append(open.chains, edit{name: name, had: true, has: true, old: closed, new: now})
	}
	return guarded, open, nil
}

// together makes edits of chains alone in one run. Where it fails, some may have been made, and can be made again.
func (d *Driver) together(f *family, edits []*tableEdit) error {
	d.before(f, edits...)
	err := d.run(d.tools.found[d.tools.use].restore[f.is], edits...)
	d.noteRun(f, edits...)
	if err == nil {
		d.stats.Restores++
	}
	return explain(err, "", 0, "")
}

// restoreAll makes edits one after another; if one fails, those before it are taken back.
func (d *Driver) restoreAll(f *family, edits []*tableEdit) error {
	for i, e := range edits {
		if err := d.restore(f, e); err != nil {
			return errors.Join(err, d.takeBack(f, edits[:i]))
		}
	}
	return nil
}

// takeBack undoes edits, the last first.
func (d *Driver) takeBack(f *family, edits []*tableEdit) error {
	var errs []error
	for _, e := range slices.Backward(edits) {
		if err := d.restore(f, e.inverse()); err != nil {
			errs = append(errs, fmt.Errorf("take back: %w", err))
		}
	}
	if len(edits) > 0 {
		d.stats.Undone++
	}
	return errors.Join(errs...)
}

// restore makes an edit: wholly, or not at all. It is not stopped half-way.
func (d *Driver) restore(f *family, e *tableEdit) error {
	if e.empty() {
		return nil
	}
	path := d.tools.found[d.tools.use].restore[f.is]
	d.before(f, e)
	err := d.run(path, e)
	d.noteRun(f, e)
	if err == nil {
		d.stats.Restores++
		return nil
	}
	line, n := lineOf(err, e.input())
	chain := d.culprit(path, e, line, err)
	return f.im.refused(chain, explain(fmt.Errorf("table %s: %w", e.table, err), line, n, chain))
}

// run gives edits to iptables-restore, each table's to be committed alone.
func (d *Driver) run(path string, edits ...*tableEdit) error {
	c := command{ns: d.ns, path: path, args: []string{"--noflush", "--wait=" + d.patience()}}
	for _, e := range edits {
		c.stdin = append(c.stdin, e.input()...)
	}
	err := c.run(context.Background(), nil)
	d.locked = isLocked(err)
	return err
}

// patience is for how many seconds to wait for the lock: no longer than a moment where it was not to be had the last time, so that
// whatever else the caller does goes on.
func (d *Driver) patience() string {
	t := d.cfg.LockTime
	if d.locked {
		t = min(t, lockedTime)
	}
	return strconv.Itoa(int(t / time.Second))
}

func isLocked(err error) bool { return err != nil && strings.Contains(err.Error(), "xtables lock") }

// restoreSets runs the lines of an edit; if one fails, those before it are taken back.
func (d *Driver) restoreSets(f *family, e *setEdit) error {
	if e.empty() {
		return nil
	}
	err := d.ipsetRestore(e.input())
	if err == nil {
		d.stats.SetRuns++
		return nil
	}
	input := e.input()
	line, _ := lineOf(err, input)
	err = f.refusedSet(line, explainSets(err, input))
	d.stats.Undone++
	if back := d.ipsetRestore(e.back()); back != nil {
		err = errors.Join(err, fmt.Errorf("take back: %w", back))
	}
	return err
}

// ipsetRestore runs lines. What is there already, or is not there to be removed, is no error.
func (d *Driver) ipsetRestore(lines []byte) error {
	c := command{ns: d.ns, path: d.tools.ipset, args: []string{"-exist", "restore"}, stdin: lines}
	return c.run(context.Background(), nil)
}

// atLine finds the line that a command complains about.
var atLine = regexp.MustCompile(`(?i)line:? (\d+)`)

// lineOf returns the line of a command's input that it complains about, and which it is.
func lineOf(err error, input []byte) (string, int) {
	m := atLine.FindStringSubmatch(err.Error())
	if m == nil {
		return "", 0
	}
	n, _ := strconv.Atoi(m[1])
	for i, line := range bytes.Split(input, []byte("\n")) {
		if i+1 == n {
			return string(line), n
		}
	}
	return "", 0
}

// remedies say what to do about what commands complain of.
var remedies = []struct{ says, do string }{
	{"xtables lock", "another program holds the lock /run/xtables.lock; find it with fuser"},
	{"do you need to insmod", "load the kernel's module ip_tables (ip6_tables) and that of the table, or set IptablesBackend to NFT"},
	{"Failed to initialize nft", "the kernel lacks nf_tables: load it, or set IptablesBackend to Legacy"},
	{"Permission denied", "run as root, or with CAP_NET_ADMIN"},
	{"Operation not permitted", "run as root, or with CAP_NET_ADMIN"},
	{"missing kernel module", "load the kernel module of the match or target that it names: xt_NAME"},
	{"Couldn't load match", "install the whole package iptables"},
	{"Set type not supported", "load the kernel's module ip_set_TYPE"},
	{"in use by a kernel component", "see which rule uses it with iptables-save | grep match-set"},
}

func remedy(err error) string {
	for _, r := range remedies {
		if strings.Contains(err.Error(), r.says) {
			return "; " + r.do
		}
	}
	return ""
}

// explain adds to an error of iptables-restore which line it is about, and what to do.
func explain(err error, line string, n int, chain string) error {
	switch {
	case err == nil:
		return nil
	case line == "":
		return fmt.Errorf("%w%s", err, remedy(err))
	case line == "COMMIT" && chain != "":
		return fmt.Errorf("%w: the kernel refuses a rule of chain %s; the module of what it asks or does (xt_NAME) may be missing%s", err, chain, remedy(err))
	case line == "COMMIT":
		return fmt.Errorf("%w: the kernel refuses the table; a module (xt_set, xt_multiport, xt_conntrack, xt_mark) may be missing%s", err, remedy(err))
	}
	return fmt.Errorf("%w: line %d is %q%s", err, n, line, remedy(err))
}

// explainSets does so for ipset.
func explainSets(err error, input []byte) error {
	if err == nil {
		return nil
	}
	if line, _ := lineOf(err, input); line != "" {
		return fmt.Errorf("%w: it is %q%s", err, line, remedy(err))
	}
	return fmt.Errorf("%w%s", err, remedy(err))
}
