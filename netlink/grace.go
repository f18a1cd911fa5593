package netlink

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// membarrier's command that waits for readers of RCU (linux/membarrier.h).
const membarrierGlobal = 1

// GracePeriod waits until no packet is under way in the kernel that was so when it was called: a
// packet passes netfilter within a read-side section of RCU, and membarrier(2)
// waits for the end of all of those there are. That takes some 5 to 20 ms.
//
// Kernels with CPUs without a tick (nohz_full), or without membarrier, do not offer that; there it waits
// for much longer than a packet takes.
func GracePeriod() {
	if !noMembarrier.Load() {
		if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno == 0 {
			return
		}
		noMembarrier.Store(true)
	}
	time.Sleep(packetTime)
}

// packetTime is longer than a packet is under way, even on a CPU that is interrupted.
const packetTime = 20 * time.Millisecond

var noMembarrier atomic.Bool // the kernel has refused it, and will again
