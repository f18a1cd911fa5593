package nft

import (
	"time"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// grace is what packets may have met that are under way: what has changed since the last grace
// period. See [filter.Changes.Steps].
type grace struct {
	sent  time.Time // the last transaction
	ruled time.Time // the last that changed rules; both zero: none since
	// chains are those that stood and have changed since, of each family.
	chains map[dataplane.Family]map[string]bool
	waits  int
	now    func() time.Time
}

// newGrace supposes that whoever was here before has changed all just now.
func newGrace() *grace {
	now := time.Now()
	return &grace{sent: now, ruled: now, chains: map[dataplane.Family]map[string]bool{}, now: time.Now}
}

// longAgo is a time after which no packet is under way, on whatever CPU.
const longAgo = time.Second

func (g *grace) recent(t time.Time) bool { return !t.IsZero() && g.now().Sub(t) < longAgo }

// beforeOpening waits for packets that are under way by rules of before the last change of rules.
func (g *grace) beforeOpening() {
	if g.recent(g.ruled) {
		g.wait()
	}
}

// beforeAll waits for packets that are under way since before the last transaction.
func (g *grace) beforeAll() {
	if g.recent(g.sent) {
		g.wait()
	}
}

// before waits if with those chains changed a packet that is under way since before the last transaction
// could meet some as they were and others as they will be.
func (g *grace) before(f dataplane.Family, standing []string) {
	if !g.recent(g.sent) {
		clear(g.chains)
	}
	changed := len(g.chains[f])
	for _, name := range standing {
		if !g.chains[f][name] {
			changed++
		}
	}
	if len(standing) > 0 && changed > 1 {
		g.beforeAll()
	}
}

// note takes in a transaction that was sent. One of which the answer was lost may have happened.
func (g *grace) note(f dataplane.Family, ruled bool, standing []string) {
	g.sent = g.now()
	if ruled {
		g.ruled = g.sent
	}
	if g.chains[f] == nil {
		g.chains[f] = map[string]bool{}
	}
	for _, name := range standing {
		g.chains[f][name] = true
	}
}

func (g *grace) wait() {
	netlink.GracePeriod()
	g.waits++
	g.sent, g.ruled = time.Time{}, time.Time{}
	clear(g.chains)
}
