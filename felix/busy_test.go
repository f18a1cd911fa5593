package felix

import (
	"testing"
	"testing/synctest"

	"github.com/calicogo/calico/store"
)

// TestBusy: the agent is busy as long as a driver is, however long that takes.
func TestBusy(t *testing.T) {
	run(t, func(t *testing.T, a *Agent, _, routes *kernel) {
		gate := make(chan struct{})
		routes.setGate(gate)
		if synctest.Wait(); a.Busy() {
			t.Error("busy without any input")
		}
		a.Update(store.Update{Revision: 5, InSync: true})
		if synctest.Wait(); !a.Busy() {
			t.Error("not busy while the kernel is being changed")
		}
		routes.setGate(nil)
		close(gate)
		if synctest.Wait(); a.Busy() {
			t.Error("busy after the work")
		}
	})
}
