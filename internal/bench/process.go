package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the processor time that a process has used, of threads that have ended too;
// see clock_getcpuclockid(3) for the number of its clock.
func cpuTime(pid int) (time.Duration, error) {
	const cpuclockSched = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &t); err != nil {
		return 0, fmt.Errorf("processor time of %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// memory of a process, in megabytes (10^6 bytes).
type memory struct{ rss, anon, peak float64 }

func memoryOf(pid int) (m memory, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for l := range bytes.Lines(b) {
		name, value, _ := strings.Cut(string(l), ":")
		var kib float64
		if to := map[string]*float64{"VmRSS": &m.rss, "RssAnon": &m.anon, "VmHWM": &m.peak}[name]; to != nil {
			if _, err := fmt.Sscan(value, &kib); err != nil {
				return m, err
			}
			*to = kib * 1024 / 1e6
		}
	}
	return m, nil
}
