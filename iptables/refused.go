package iptables

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/calicogo/calico/filter"
)

// blamed is an error that is of several objects of the program, each of which alone would be refused.
type blamed struct {
	error
	objects []string // in order
}

func (b *blamed) Unwrap() (list []error) {
	for _, o := range b.objects {
		list = append(list, &filter.Refused{Object: o, Err: b.error})
	}
	return list
}

// refused says that an error is of a chain of the kernel's. Of one that rules need beside them it is those
// whose rules these are.
func (im *image) refused(kernel string, err error) error {
	b := &blamed{error: err}
	for key, rules := range im.contents {
		leadsTo := func(r filter.Rule) bool { return leads(r) && r.Target == kernel }
		if isHelper(kernel) && slices.ContainsFunc(rules, leadsTo) || !isHelper(kernel) && im.chainName(key) == kernel {
			b.objects = append(b.objects, key)
		}
	}
	if len(b.objects) == 0 {
		return err
	}
	slices.Sort(b.objects)
	return b
}

// maxDevices is how many devices hash:net,iface takes for one address: they are in one bucket of the hash.
const maxDevices = 64

// refusedSet says that an error of ipset restore is of the set that a line is about, or of the endpoint whose
// device is in it.
func (f *family) refusedSet(line string, err error) error {
	words := strings.Fields(line)
	if len(words) < 2 {
		return err
	}
	for name, s := range f.sets {
		if s.name == words[1] || tempName(s.name) == words[1] {
			return f.refusedMember(name, words[2:], err)
		}
	}
	return err
}

func (f *family) refusedMember(name string, member []string, err error) error {
	set := f.compiler.Program().Sets[name]
	if set == nil || set.Kind != filter.IfaceAddrs || len(member) == 0 {
		return &filter.Refused{Object: name, Err: err}
	}
	addr, device, _ := strings.Cut(member[0], ",")
	if strings.Contains(err.Error(), "Hash is full") {
		err = fmt.Errorf("%w; %s stands at more than %d devices, which is all that iptables can tell apart: let fewer pods send from it, or use nftables", err, addr, maxDevices)
	}
	return &filter.Refused{Object: filter.ObjectOf(device), Err: err}
}

// inChain finds the chain of which iptables-nft-restore says that the kernel has refused a rule.
var inChain = regexp.MustCompile(`RULE_(?:APPEND|INSERT|REPLACE) failed .*: rule in chain (\S+)`)

// culprit returns the chain that iptables-restore, or the kernel, has refused; empty: it cannot be told.
// Legacy iptables does not say what the kernel refuses: it is asked for ever less, in a chain that nothing leads to.
func (d *Driver) culprit(path string, e *tableEdit, line string, err error) string {
	if m := inChain.FindStringSubmatch(err.Error()); m != nil {
		return m[1]
	}
	if words := strings.Fields(line); len(words) > 1 && words[0] == "-A" {
		return words[1]
	}
	if line != "COMMIT" {
		return ""
	}
	suspects := slices.DeleteFunc(slices.Clone(e.chains), func(c edit) bool { return !c.has || len(c.new) == 0 })
	if len(suspects) == 0 || !d.refuses(path, e.table, suspects) {
		return ""
	}
	for len(suspects) > 1 {
		first, second := suspects[:len(suspects)/2], suspects[len(suspects)/2:]
		switch {
		case d.refuses(path, e.table, first):
			suspects = first
		case d.refuses(path, e.table, second):
			suspects = second
		default:
			return "" // only together, or it changes its mind
		}
	}
	return suspects[0].name
}

// refuses tells whether the kernel takes the rules of chains not, wherever they lead.
func (d *Driver) refuses(path string, in table, chains []edit) bool {
	trial := edit{name: chainPrefix + "trial", has: true}
	for _, c := range chains {
		for _, body := range c.new {
			if wayOf(body) == "" {
				trial.new = append(trial.new, body)
			}
		}
	}
	e := &tableEdit{table: in, chains: []edit{trial}}
	err := d.run(path, e)
	d.run(path, e.inverse()) // should it be left, it goes with the next read-back
	if err == nil {
		return false
	}
	line, _ := lineOf(err, e.input())
	return line == "COMMIT"
}
