package api

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

const located = `# what is wrong stands where it is
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: a
  namespace: b
  labels:
    example.org/a.b: c d
spec:
  types:
  - Ingress
  ingress:
  - action: Allow
    protocol: TCP
    source:
      nets:
      - 10.0.0.1
      - nonsense
`

func TestAt(t *testing.T) {
	for _, c := range []struct {
		from, to string // replaced in located
		line     int
		want     string
	}{
		{"", "", 9, "metadata.labels[example.org/a.b]"},
		{"c d", "c", 19, "spec.ingress[0].source.nets[1]"},
		{"c d\nspec:", "c\nspec: # {", 19, "spec.ingress[0].source.nets[1]"},
		{"c d\nspec:\n  types:\n  - Ingress", "c\nspec:\n  types: [Ingress,\n   Ingress]", 12, "spec.types[1]: Duplicate"},
		{"    example.org/a.b: c d\nspec:\n  types:\n  - Ingress\n  ingress:\n  - action: Allow", "    a: b\nspec:\n  ingress:\n  - ipVersion: 4", 12, "spec.ingress[0].action: Required"},
		{"  name: a\n", "", 5, "metadata.name: Required"},
	} {
		docs, err := Documents("f.yaml", []byte(strings.Replace(located, c.from, c.to, 1)))
		if err != nil || len(docs) != 1 {
			t.Fatal(err, docs)
		}
		o, err := docs[0].Object()
		if err != nil {
			t.Fatal(err)
		}
		o.Default()
		err = o.Validate()
		if err == nil {
			t.Fatal("valid: ", c.to)
		}
		got := docs[0].At(fmt.Errorf("NetworkPolicy(b/a): %w", err)).Error()
		if want := fmt.Sprintf("f.yaml: document 1, line %d: NetworkPolicy(b/a): ", c.line); !strings.HasPrefix(got, want) || !strings.Contains(got, c.want) {
			t.Errorf("got  %s\nwant %s… %s", got, want, c.want)
		}
	}
	docs, _ := Documents("", []byte(located))
	for path, line := range map[string]int{"": 3, "nothing": 3, "spec.nothing.at.all": 10, "spec.ingress[7]": 13, "spec.ingress[x": 13, "kind.a": 4, "[": 3, "..": 3} {
		if got := docs[0].root.lineOf(path) + docs[0].offset; got != line {
			t.Errorf("%q: line %d, want %d", path, got, line)
		}
	}
	if got := docs[0].At(errors.New("no field")).Error(); got != "line 3: no field" {
		t.Error(got)
	}
}
