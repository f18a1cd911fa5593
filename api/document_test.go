package api

import (
	"strings"
	"testing"
)

const policyYAML = `apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: allow
  namespace: prod
  creationTimestamp: "2026-01-01T00:00:00Z"
  labels: {version: 1.10, on: yes}
  managedFields:
  - manager: kubectl
    fieldsV1: {"f:spec": {}}
spec:
  order: 10
  selector: app == 'db'
  ingress:
  - action: Allow
    protocol: tcp
    source: {selector: app == 'web', nets: [10.0.0.0/8]}
    destination:
      ports: [80, "1000:2000", http]
`

func TestDecode(t *testing.T) {
	o, err := Decode([]byte(policyYAML))
	if err != nil {
		t.Fatal(err)
	}
	p := o.(*NetworkPolicy)
	o.Default()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	if got := p.Labels["version"] + p.Labels["on"]; got != "1.10yes" {
		t.Errorf("labels: got %q", got)
	}
	if got := p.Spec.Ingress[0].Destination.Ports; len(got) != 3 || got[1] != (Port{Min: 1000, Max: 2000}) || got[2].Name != "http" {
		t.Errorf("ports: got %v", got)
	}
	if *p.Spec.Ingress[0].Protocol != "TCP" {
		t.Errorf("protocol: got %s", *p.Spec.Ingress[0].Protocol)
	}
}

func TestDecodeErrors(t *testing.T) {
	head := "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: a}\n"
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", "want one object, found 0"},
		{"two", head + "---\n" + head, "want one object, found 2"},
		{"scalar", "hello\n", `line 1: is "hello", but an object is a mapping`},
		{"no kind", "apiVersion: v1\n", `line 1: field "kind" is missing`},
		{"kind", "apiVersion: projectcalico.org/v3\nkind: IPool\n", `line 2: unknown kind "IPool"; known kinds: BGPConfiguration, `},
		{"version", "kind: IPPool\napiVersion: v1\n", `line 2: apiVersion "v1" with kind "IPPool": want apiVersion projectcalico.org/v3`},
		{"field", head + "spec:\n  cidr: 10.0.0.0/16\n  blocksize: 26\n", `line 6: unknown field "spec.blocksize"; did you mean "blockSize"?`},
		{"case", head + "spec: {CIDR: 10.0.0.0/16}\n", `line 4: unknown field "spec.CIDR"; did you mean "cidr"?`},
		{"type", head + "spec:\n  cidr: x\n  blockSize: big\n", `line 6: spec.blockSize: is "big", but must be a whole number`},
		{"bool", head + "spec:\n  natOutgoing: \"true\"\n", `line 5: spec.natOutgoing: is "true", but must be true or false`},
		{"list", head + "spec:\n  allowedUses: Workload\n", `line 5: spec.allowedUses: is "Workload", but must be a list`},
		{"mapping", head + "spec: [a]\n", `line 4: spec: is a list, but must be a mapping`},
		{"string", head + "spec:\n  cidr: [a]\n", `line 5: spec.cidr: is a list, but must be a string`},
		{"twice", head + "spec:\n  cidr: a\n  blockSize: 1\n  cidr: b\n", `line 7: malformed YAML: field "cidr" is already given on line 5`},
		{"several", head + "spec:\n  a: 1\n  b: 2\n", `line 5: unknown field "spec.a"; line 6: unknown field "spec.b"`},
		{"tag", head + "spec:\n  nodeSelector: !all()\n", `line 5: malformed YAML: a value that begins with ! must be in quotes: "!all()"`},
		{"tag before a value", head + "spec:\n  nodeSelector: ! has(a)\n", `line 5: malformed YAML: a value that begins with ! must be in quotes: "! has(a)"`},
		{"indent", head + "spec:\n  cidr: a\n   blockSize: 1\n", `line 6: malformed YAML: mapping values are not allowed in this context`},
		{"tab", head + "spec:\n\tcidr: a\n", `line 5: malformed YAML: found character that cannot start any token`},
		{"bracket", head + "spec: [a\nstatus: {}\n", `line 5: malformed YAML: `},
		{"quote", head + "spec:\n  cidr: \"a\n", `malformed YAML: found unexpected end of stream`},
		{"key", head + "spec:\n  cidr: a\n foo: b\n", `line 6: malformed YAML: did not find expected key`},
		{"JSON", "{\n\t\"apiVersion\": \"projectcalico.org/v3\",\n\t\"kind\": \"IPPool\",\n\t\"spec\": {\"x\": 1}\n}", `line 4: unknown field "spec.x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Decode([]byte(c.in))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %q", err)
			}
		})
	}
}

func TestPortErrorNamesPathAndLine(t *testing.T) {
	_, err := DecodeAll("p.yaml", []byte("# a comment\n---\n"+policyYAML+"---\n"+strings.Replace(policyYAML, "1000:2000", "2000:1000", 1)))
	want := `p.yaml: document 2, line 41: spec.ingress[0].destination.ports[1]: port range "2000:1000" ends before it begins`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestDecodeAll(t *testing.T) {
	pool := func(name string) string {
		return "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: " + name + "}\n"
	}
	for _, c := range []struct{ name, in, want, err string }{
		{"none", "", "", ""},
		{"comments", "# nothing\n---\n# at all\n", "", ""},
		{"two", pool("a") + "---\n" + pool("b"), "a b", ""},
		{"empty between", "---\n---\n" + pool("a") + "---\n\n---\n# x\n--- # y\n" + pool("b") + "...\n", "a b", ""},
		{"directive", "%YAML 1.1\n---\n" + pool("a"), "a", ""},
		{"carriage returns", strings.ReplaceAll(pool("a")+"---\n"+pool("b"), "\n", "\r\n"), "a b", ""},
		{"byte order mark", "\ufeff" + pool("a"), "a", ""},
		{"after the end", pool("a") + "...\n" + pool("b"), "a b", ""},
		{"List", "kind: List\napiVersion: v1\nmetadata: {resourceVersion: \"\"}\nitems:\n- apiVersion: projectcalico.org/v3\n  kind: IPPool\n  metadata: {name: a}\n- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: b}}\n", "a b", ""},
		{"IPPoolList", "kind: IPPoolList\napiVersion: projectcalico.org/v3\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n", "a b", ""},
		{"empty list", "kind: IPPoolList\napiVersion: projectcalico.org/v3\nitems: []\n", "", ""},
		{"null list", "kind: IPPoolList\napiVersion: projectcalico.org/v3\nitems:\n", "", ""},
		{"bad item", "kind: IPPoolList\napiVersion: projectcalico.org/v3\nitems:\n- metadata: {name: a}\n- metadata: {nam: b}\n", "", `f: document 1, line 5: unknown field "metadata.nam"; did you mean "name"?`},
		{"scalar item", "kind: List\napiVersion: v1\nitems:\n- a\n", "", `f: document 1, line 4: is "a"`},
		{"items no list", "kind: List\napiVersion: v1\nitems: a\n", "", `f: document 1, line 3: items: is "a", but must be a list`},
		{"second", pool("a") + "---\n" + pool("b") + "spec: {foo: 1}\n", "", `f: document 2, line 8: unknown field "spec.foo"`},
		{"two errors", pool("a") + "---\n" + pool("b") + "spec:\n  foo: 1\n  bar: 1\n", "", `f: document 2, line 9: unknown field "spec.foo"; line 10: unknown field "spec.bar"`},
		{"malformed second", pool("a") + "---\n" + pool("b") + "spec: {\n", "", `f: document 2, line `},
		{"anchors", "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: &m {name: a}\n---\n" + pool("b"), "a b", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects, err := DecodeAll("f", []byte(c.in))
			if c.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.err) {
					t.Fatalf("got  %v\nwant %s", err, c.err)
				}
				return
			}
			var names []string
			for _, o := range objects {
				names = append(names, o.GetName())
			}
			if got := strings.Join(names, " "); err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// A document that expands to billions of nodes is refused, not expanded.
func TestDecodeRefusesExplosion(t *testing.T) {
	in := "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 12; i++ {
		c, p := string(rune('0'+i)), string(rune('0'+i-1))
		if i >= 10 {
			c = "z" + c
		}
		if i > 10 {
			p = "z" + p
		}
		in += "a" + c + ": &a" + c + " [" + strings.Repeat("*a"+p+",", 9) + "]\n"
	}
	if _, err := Decode([]byte(in)); err == nil {
		t.Error("accepted")
	}
}
