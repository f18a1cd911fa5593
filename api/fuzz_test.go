package api

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// longSeed is the length of seeds that are left out: they take the fuzzer's time for nothing.
const longSeed = 2000

// FuzzDecode holds of any document: nothing panics; what is refused is refused in one line;
// what is accepted is as checkForms says.
func FuzzDecode(f *testing.F) {
	for _, c := range valid {
		if len(c.body) < longSeed {
			f.Add([]byte(doc(c.kind, c.body)))
		}
	}
	f.Add([]byte(policyYAML))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("? {a: b}\n: c\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := Decode(in)
		if err != nil {
			oneLine(t, err)
			return
		}
		checkForms(t, o)
	})
}

// FuzzRule is FuzzDecode of one rule of a policy.
func FuzzRule(f *testing.F) {
	for _, c := range valid {
		for _, direction := range []string{"ingress: [", "egress: ["} {
			if _, body, ok := strings.Cut(c.body, direction); ok && len(body) < longSeed {
				f.Add(direction == "egress: [", len(c.body)%2 == 0, strings.TrimSuffix(body, "]}"))
			}
		}
	}
	f.Add(false, false, `action: Allow, protocol: SCTP, ipVersion: 6, source: {ports: [a, 1, "2:3"], notNets: ["fd00::/8"], notSelector: "!has(a)"}`)
	f.Add(true, true, `{"action":"Log","notProtocol":"UDPLite","destination":{"notPorts":["x"],"notSelector":"all()"}}`)
	f.Fuzz(func(t *testing.T, egress, global bool, body string) {
		kind, direction := "NetworkPolicy", "ingress"
		if global {
			kind = "GlobalNetworkPolicy"
		}
		if egress {
			direction = "egress"
		}
		o, err := Decode([]byte(doc(kind, "spec: {"+direction+": ["+body+"]}")))
		if err != nil {
			oneLine(t, err)
			return
		}
		checkForms(t, o)
	})
}

// checkForms holds of o: it has a YAML and a JSON form that mean the same; Default is
// idempotent; what is valid is so however it was written.
func checkForms(t *testing.T, o Object) {
	t.Helper()
	o.Default()
	again := Clone(o)
	again.Default()
	if diff := cmp.Diff(asJSON(t, o), asJSON(t, again)); diff != "" {
		t.Errorf("Default is not idempotent: %s", diff)
	}
	err := o.Validate()
	if err != nil {
		oneLine(t, err)
	}
	for _, marshal := range []func(any) ([]byte, error){yaml.Marshal, json.Marshal} {
		b, merr := marshal(o)
		if merr != nil {
			t.Fatal(merr)
		}
		back, derr := Decode(b)
		if derr != nil {
			t.Fatalf("does not read back: %v\n%s", derr, b)
		}
		if diff := cmp.Diff(asJSON(t, o), asJSON(t, back)); diff != "" {
			t.Errorf("differs when read back: %s", diff)
		}
		if err == nil != (back.Validate() == nil) {
			t.Errorf("%v, but %v when read back", err, back.Validate())
		}
	}
}

func oneLine(t *testing.T, err error) {
	t.Helper()
	if s := err.Error(); strings.ContainsAny(s, "\r\n") || s == "" {
		t.Errorf("not one line: %q", s)
	}
}

// asJSON is o's JSON without empty lists and mappings, which mean what none means.
func asJSON(t *testing.T, o Object) string {
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	b, err = json.Marshal(pruned(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func pruned(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if v[k] = pruned(e); v[k] == nil {
				delete(v, k)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = pruned(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

// FuzzScalar holds of the types that read themselves: what they read they write, and read
// again as the same.
func FuzzScalar(f *testing.F) {
	for _, s := range []string{"80", "1000:2000", "http", "0", "65536", "-", "1:", "a:b", "\xe7", "TCP", "6", "256", "-1", "null", "1.5", "007",
		"64512", "1.10", "4294967296", "65536.1", `"80"`, `"TCP"`, `"1.10"`, `"007"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePort(s); err == nil {
			if back := again[Port](t, p); back != p && utf8.ValidString(s) {
				t.Errorf("port %q: got %v, want %v", s, back, p)
			}
		}
		for _, in := range []string{s, `"` + s + `"`} {
			if p, ok := from[Port](in); ok && again[Port](t, p) != p {
				t.Errorf("port %s: got %v, want %v", in, again[Port](t, p), p)
			}
			if p, ok := from[Protocol](in); ok {
				a, okA := p.Number()
				b, okB := again[Protocol](t, p).Number()
				if a != b || okA != okB || again[Protocol](t, p.canonical()).canonical() != p.canonical() && okA {
					t.Errorf("protocol %s: got %v, want %v", in, b, a)
				}
			}
			if a, ok := from[ASNumber](in); ok && again[ASNumber](t, a) != a {
				t.Errorf("AS number %s: got %v, want %v", in, again[ASNumber](t, a), a)
			}
		}
	})
}

// from reads a T from JSON.
func from[T any](in string) (v T, ok bool) {
	err := json.Unmarshal([]byte(in), &v)
	return v, err == nil
}

// again writes v as JSON and reads it.
func again[T any](t *testing.T, v T) T {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	back, ok := from[T](string(b))
	if !ok {
		t.Errorf("%v is written %s, which cannot be read", v, b)
	}
	return back
}
