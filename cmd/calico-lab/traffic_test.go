package main

import (
	"os/exec"
	"testing"
)

// What a shell makes of a word is what it was.
func TestShellWord(t *testing.T) {
	for _, s := range []string{"", "plain", "unix:///run/lab/etcd.sock", "with blank", `a'b"c$HOME\`, "`id`;", "*", "new\nline"} {
		out, err := exec.Command("sh", "-c", "printf %s "+shellWord(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q: the shell reads %q, %v", s, out, err)
		}
	}
}
