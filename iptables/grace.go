package iptables

import (
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// grace is what packets may have met that are under way: what has changed since the last grace
// period. See [filter.Changes.Steps].
type grace struct {
	ruled time.Time // the last run that changed rules; zero: none since
	// chains are those that stood and have changed since, of each family.
	chains map[dataplane.Family]map[string]bool
}

// newGrace supposes that whoever was here before has changed rules just now.
func newGrace() grace {
	return grace{ruled: time.Now(), chains: map[dataplane.Family]map[string]bool{}}
}

// longAgo is a time after which no packet is under way, on whatever CPU.
const longAgo = time.Second

// beforeOpening waits until no packet is under way by rules of before the last change of rules, which may be
// an earlier Sync's.
func (g *grace) beforeOpening() {
	if !g.ruled.IsZero() && time.Since(g.ruled) < longAgo {
		netlink.GracePeriod()
	}
	g.ruled = time.Time{}
	clear(g.chains)
}

// before waits if with these edits made a packet that is under way since before the last run could meet
// some chains as they were and others as they will be. In legacy iptables a packet meets the table that was there when
// it came to the hook.
func (d *Driver) before(f *family, edits ...*tableEdit) {
	if d.tools.use != NFT {
		return
	}
	g := &d.grace
	if time.Since(g.ruled) >= longAgo {
		clear(g.chains)
	}
	changed := len(g.chains[f.is])
	standing := false
	for _, name := range standingOf(edits) {
		standing = true
		if !g.chains[f.is][name] {
			changed++
		}
	}
	if standing && changed > 1 {
		g.beforeOpening()
	}
}

// noteRun takes in a run that was tried. One that failed may have been done.
func (d *Driver) noteRun(f *family, edits ...*tableEdit) {
	g := &d.grace
	g.ruled = time.Now()
	if g.chains[f.is] == nil {
		g.chains[f.is] = map[string]bool{}
	}
	for _, name := range standingOf(edits) {
		g.chains[f.is][name] = true
	}
}

// standingOf names the chains that stood and are changed, but for trees of devices where pods only come or only
// go: one that is known in one place and not in another is denied.
func standingOf(edits []*tableEdit) (names []string) {
	come, gone := false, false
	for _, e := range edits {
		for _, c := range e.chains {
			come, gone = come || !c.had, gone || !c.has
		}
	}
	for _, e := range edits {
		for _, c := range e.chains {
			if c.had && c.has && (!c.tree || come && gone) {
				names = append(names, e.table.String()+" "+c.name)
			}
		}
	}
	return names
}
