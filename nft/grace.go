package nft

import (
	"sync"

	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/netlink"
)

// grace is what packets may have met that are under way: what has changed since the last grace
// period. See [filter.Changes.Steps]. Transactions are numbered, and after each a grace
// period begins at once that nobody waits for: mostly it is over when one is needed.
type grace struct {
	sent, ruled uint64 // the last transaction, and the last that changed rules
	// chains are those that stood and have changed, of each family, and with which transaction last.
	chains map[dataplane.Family]map[string]uint64
	waits  int
	period func() // takes a grace period

	mu      sync.Mutex // of what follows, and of writing sent
	passed  uint64     // no packet is under way that began before this transaction was made
	running *period
}

// period is a grace period that nobody need wait for.
type period struct {
	after uint64 // the last transaction before it
	done  chan struct{}
}

// newGrace supposes that whoever was here before has changed all just now.
func newGrace() *grace {
	g := &grace{sent: 1, ruled: 1, chains: map[dataplane.Family]map[string]uint64{}, period: netlink.GracePeriod}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.begin()
	return g
}

// begin has a grace period begin, unless one runs, after which the next does, or none is needed.
func (g *grace) begin() {
	if g.running != nil || g.passed >= g.sent {
		return
	}
	p := &period{after: g.sent, done: make(chan struct{})}
	g.running = p
	go func() {
		defer close(p.done)
		g.period()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.passed = max(g.passed, p.after)
		g.running = nil
		g.begin()
	}()
}

// beforeOpening waits for packets that are under way by rules of before the last change of rules.
func (g *grace) beforeOpening() { g.wait(g.ruled) }

// beforeAll waits for packets that are under way since before the last transaction.
func (g *grace) beforeAll() { g.wait(g.sent) }

// before waits if with those chains changed a packet that is under way since before the last transaction
// could meet some as they were and others as they will be.
func (g *grace) before(f dataplane.Family, standing []string) {
	if len(standing) == 0 {
		return
	}
	g.forget()
	changed := len(g.chains[f])
	for _, name := range standing {
		if g.chains[f][name] == 0 {
			changed++
		}
	}
	if changed > 1 {
		g.beforeAll()
	}
}

// forget drops the chains that all packets have met as they are.
func (g *grace) forget() {
	g.mu.Lock()
	passed := g.passed
	g.mu.Unlock()
	for _, chains := range g.chains {
		for name, n := range chains {
			if n <= passed {
				delete(chains, name)
			}
		}
	}
}

// note takes in a transaction that was sent. One of which the answer was lost may have happened.
func (g *grace) note(f dataplane.Family, ruled bool, standing []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sent++
	if ruled {
		g.ruled = g.sent
	}
	if g.chains[f] == nil {
		g.chains[f] = map[string]uint64{}
	}
	for _, name := range standing {
		g.chains[f][name] = g.sent
	}
	g.begin()
}

// wait returns when no packet is under way that began before that transaction was made: by the
// grace period that runs if it has begun since then, else by one of its own.
func (g *grace) wait(n uint64) {
	g.mu.Lock()
	p, sent, over := g.running, g.sent, g.passed >= n
	g.mu.Unlock()
	if over {
		return
	}
	g.waits++
	if p != nil && p.after >= n {
		<-p.done
		return
	}
	g.period()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed = max(g.passed, sent)
}
