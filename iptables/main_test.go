package iptables

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMain gives the tests a lock of their own: they wait for no other program, and leave the host's alone. A process that a
// test starts has its parent's.
func TestMain(m *testing.M) {
	const variable = "XTABLES_LOCKFILE"
	if os.Getenv(variable) != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "iptables")
	if err != nil {
		panic(err)
	}
	os.Setenv(variable, filepath.Join(dir, "lock"))
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}
