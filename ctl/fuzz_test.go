package ctl_test

import (
	"strings"
	"testing"
)

// Whatever a file holds, apply writes it or says in one line why not, and what it wrote it
// can show and delete.
func FuzzApply(f *testing.F) {
	f.Add(hard)
	f.Add("apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: \"a\\nb\"}\n")
	f.Add("apiVersion: v1\nkind: List\nitems: [{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n, resourceVersion: x}}]\n")
	f.Add("apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata:\nspec: {labelsToApply: {a: 1}}\n")
	f.Add("{")
	f.Fuzz(func(t *testing.T, text string) {
		c := newConsole(t)
		code, out, errOut := c.run(text, "apply", "-f", "-")
		if code != 0 {
			if code != 1 || out != "" || strings.Count(errOut, "\n") != 1 {
				t.Fatalf("exit code %d, %q, %q", code, out, errOut)
			}
			return
		}
		for _, args := range [][]string{{"apply"}, {"get"}, {"get", "-o", "yaml"}, {"get", "-o", "wide"}, {"delete"}} {
			code, _, errOut := c.run(text, append(args, "-f", "-")...)
			if args[0] == "apply" && strings.Contains(errOut, "is out of date") {
				continue // the file says a resourceVersion
			}
			if code != 0 || errOut != "" {
				t.Fatalf("%v: exit code %d, %s", args, code, errOut)
			}
		}
	})
}
