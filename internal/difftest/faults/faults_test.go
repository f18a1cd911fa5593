package main

import (
	"go/parser"
	"go/token"
	"testing"
)

// TestFaultsApply holds that each fault can still be planted: its text is in the sources, once, and
// they are Go with it.
func TestFaultsApply(t *testing.T) {
	names := map[string]bool{}
	for _, f := range faults {
		if names[f.name] {
			t.Errorf("two faults are called %q", f.name)
		}
		names[f.name] = true
		text, err := f.apply("../../..")
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
			continue
		}
		if _, err := parser.ParseFile(token.NewFileSet(), f.file, text, 0); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}

func TestReason(t *testing.T) {
	for out, want := range map[string]string{
		"--- FAIL\n  x.go:1: seed 1, round 7: nft does not agree: it passes: true, want false; seen\npacket": "nft in state 7: it passes: true, want false",
		"x.go:1: seed 1, round 7: iptables-nft: no such set\nsettings":                                       "state 7: iptables-nft: no such set",
		"panic: nil\ngoroutine": "another failure: panic: nil",
	} {
		if got := reason([]byte(out)); got != want {
			t.Errorf("reason(%q) = %q, want %q", out, got, want)
		}
	}
}
