package node

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A snapshot or a change of much takes several times the memory that stays in use after
// it, and the runtime keeps most of that for work that may not come for hours: without
// this, an agent at rest is up to three times as large as what it holds.

const (
	trimPeriod = time.Second
	// restless allocation within a period, in bytes, says that work goes on.
	restless = 512 << 10
	// leastTrim is the allocation since the last trim that makes another worth its while:
	// it costs what a garbage collection costs, 1 ms of processor time per MB in use.
	leastTrim = 2 << 20
)

// trimMemory gives memory back to the kernel whenever the node comes to rest after work.
// While the agent is busy it may hold much that it is about to drop, and be quiet for long:
// the kernel takes its time for a large transaction.
func trimMemory(ctx context.Context, busy func() bool) error {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(trimPeriod)
	defer tick.Stop()
	var t trimmer
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		metrics.Read(samples)
		if !busy() && t.due(samples[0].Value.Uint64(), samples[1].Value.Uint64()) {
			debug.FreeOSMemory()
		}
	}
}

// trimmer judges when to trim.
type trimmer struct {
	last    uint64 // bytes ever allocated, a period ago
	trimmed uint64 // and at the last trim
}

// due tells whether to trim now, given the bytes that were ever allocated, and those that
// were live when the garbage was last collected.
func (t *trimmer) due(allocated, live uint64) bool {
	quiet := allocated-t.last < restless
	t.last = allocated
	if !quiet || allocated-t.trimmed < max(leastTrim, live/4) {
		return false
	}
	t.trimmed = allocated
	return true
}
