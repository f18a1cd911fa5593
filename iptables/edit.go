package iptables

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// edit is what becomes of one chain: its rules' bodies, in order.
type edit struct {
	name     string // the kernel's
	had, has bool
	tree     bool // it is of a tree of devices
	known    bool // it is of one that says of which pods it is known that they are there
	old, new []string
}

// jump is a rule of a chain that is not ours.
type jump struct {
	chain, body string
	at          int // from 1; 0: at the end
}

// tableEdit is what becomes of a table, in one transaction.
type tableEdit struct {
	table  table
	chains []edit
	remove []jump // each once
	add    []jump
}

// fresh tells whether there is nothing of ours in the table yet.
func (e *tableEdit) fresh() bool {
	return len(e.remove) == 0 && !slices.ContainsFunc(e.chains, func(c edit) bool { return c.had })
}

// devices tells whether all that changes is which devices are known.
func (e *tableEdit) devices() bool {
	return e.chainsOnly() && !slices.ContainsFunc(e.chains, func(c edit) bool { return !c.known })
}

// chainsOnly tells whether the built-in chains stay as they are. Such an edit can be made twice.
func (e *tableEdit) chainsOnly() bool { return len(e.remove)+len(e.add) == 0 }

func (e *tableEdit) empty() bool { return len(e.chains)+len(e.remove)+len(e.add) == 0 }

// inverse is the way back.
func (e *tableEdit) inverse() *tableEdit {
	back := &tableEdit{table: e.table, remove: e.add, add: slices.Clone(e.remove)}
	slices.SortStableFunc(back.add, func(a, b jump) int { return cmp.Compare(a.at, b.at) })
	for _, c := range e.chains {
		c.had, c.has, c.old, c.new = c.has, c.had, c.new, c.old
		back.chains = append(back.chains, c)
	}
	return back
}

// input is the edit as iptables-restore --noflush reads it. A chain that is declared is emptied, or made.
// Rules that jump into one that goes have gone before it.
func (e *tableEdit) input() []byte {
	slices.SortFunc(e.chains, func(a, b edit) int { return strings.Compare(a.name, b.name) })
	b := fmt.Appendf(nil, "*%s\n", e.table)
	for _, c := range e.chains {
		b = fmt.Appendf(b, ":%s - [0:0]\n", c.name)
	}
	for _, j := range e.remove {
		b = fmt.Appendf(b, "-D %s %s\n", j.chain, j.body)
	}
	for _, c := range e.chains {
		for _, body := range c.new {
			b = append(append(append(b, "-A "...), c.name...), ' ')
			b = append(append(b, body...), '\n')
		}
	}
	for _, j := range e.add {
		if j.at > 0 {
			b = fmt.Appendf(b, "-I %s %d %s\n", j.chain, j.at, j.body)
		} else {
			b = fmt.Appendf(b, "-A %s %s\n", j.chain, j.body)
		}
	}
	for _, c := range e.chains {
		if !c.has {
			b = fmt.Appendf(b, "-X %s\n", c.name)
		}
	}
	return append(b, "COMMIT\n"...)
}
