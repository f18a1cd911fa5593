package api

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// FuzzDecode holds: nothing panics; what is accepted has a YAML and a JSON form that mean
// the same; Default is idempotent, and what it makes valid stays valid.
func FuzzDecode(f *testing.F) {
	for _, c := range valid {
		f.Add([]byte(doc(c.kind, c.body)))
	}
	f.Add([]byte(policyYAML))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("? {a: b}\n: c\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := Decode(in)
		if err != nil {
			return
		}
		o.Default()
		again := Clone(o)
		again.Default()
		if diff := cmp.Diff(o, again); diff != "" {
			t.Errorf("Default is not idempotent: %s", diff)
		}
		valid := o.Validate() == nil
		for _, marshal := range []func(any) ([]byte, error){yaml.Marshal, json.Marshal} {
			b, err := marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			back, err := Decode(b)
			if err != nil {
				t.Fatalf("does not read back: %v\n%s", err, b)
			}
			if diff := cmp.Diff(asJSON(t, o), asJSON(t, back)); diff != "" {
				t.Errorf("differs when read back: %s", diff)
			}
			if (back.Validate() == nil) != valid {
				t.Errorf("valid %v, but not when read back", valid)
			}
		}
	})
}

func asJSON(t *testing.T, o Object) string {
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func FuzzPort(f *testing.F) {
	for _, s := range []string{"80", "1000:2000", "http", "0", "65536", "-", "1:", "a:b", "\xe7"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePort(s)
		if err != nil {
			return
		}
		var back Port
		b, err := json.Marshal(p)
		if err == nil {
			err = json.Unmarshal(b, &back)
		}
		if err != nil || (back != p && utf8.ValidString(s)) {
			t.Errorf("%q: %s: got %v, %v; want %v", s, b, back, err, p)
		}
	})
}

func FuzzProtocol(f *testing.F) {
	for _, s := range []string{`"TCP"`, `6`, `"6"`, `256`, `-1`, `null`, `1.5`, `"007"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var p, back Protocol
		if json.Unmarshal(in, &p) != nil {
			return
		}
		b, err := json.Marshal(p)
		if err == nil {
			err = json.Unmarshal(b, &back)
		}
		a, okA := p.Number()
		c, okC := back.Number()
		if err != nil || a != c || okA != okC {
			t.Errorf("%q: %s: got %v, %v", in, b, back, err)
		}
	})
}

func FuzzASNumber(f *testing.F) {
	for _, s := range []string{`64512`, `"64512"`, `"1.10"`, `1.10`, `4294967296`, `"65536.1"`, `-1`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var a, back ASNumber
		if json.Unmarshal(in, &a) != nil {
			return
		}
		b, err := json.Marshal(a)
		if err == nil {
			err = json.Unmarshal(b, &back)
		}
		if err != nil || back != a {
			t.Errorf("%s: %s: got %v, %v; want %v", in, b, back, err, a)
		}
	})
}
