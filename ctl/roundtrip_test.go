package ctl_test

import (
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// What get prints, in every form but tables, apply takes; and where it is the same it writes
// nothing.
func TestRoundTrip(t *testing.T) {
	c := newConsole(t)
	c.write(t, "objects.yaml", []byte(hard))
	run := func(stdin string, args ...string) string {
		t.Helper()
		code, out, errOut := c.run(stdin, args...)
		if code != 0 || errOut != "" {
			t.Fatalf("%v: exit code %d\n%s", args, code, errOut)
		}
		return out
	}
	run("", "apply", "-f", "objects.yaml")
	_, rev, _ := c.store.List(t.Context(), "Tier", "")
	for _, form := range [][]string{{"-o", "yaml"}, {"-o", "json"}, {"-o", "yaml", "--export"}, {"-o", "json", "--export"}} {
		for _, what := range [][]string{
			{"get", "-f", "objects.yaml"}, {"get", "np", "-A"}, {"get", "pools"}, {"get", "pool", "a"}, {"get", "pool", "a", "b"},
		} {
			text := run("", append(what, form...)...)
			run(text, "apply", "-f", "-")
			if _, now, _ := c.store.List(t.Context(), "Tier", ""); now != rev {
				t.Errorf("%v %v changed something:\n%s", what, form, text)
			}
		}
	}
	// A backup goes into an empty datastore, with or without --export.
	for _, form := range []string{"--export", "--export=false"} {
		backup := run("", "get", "-f", "objects.yaml", "-o", "yaml", form)
		was := c.store
		c.store = newConsole(t).store
		run(backup, "create", "-f", "-")
		for _, k := range []store.Key{{Kind: "NetworkPolicy", Namespace: "web", Name: "p"}, {Kind: "IPPool", Name: "a"}} {
			a, errA := was.Get(t.Context(), k)
			b, errB := c.store.Get(t.Context(), k)
			if errA != nil || errB != nil || specOf(t, c, a) != specOf(t, c, b) || a.GetUID() == b.GetUID() {
				t.Errorf("%v: %v %v, want %v %v", k, b, errB, a, errA)
			}
		}
		c.store = was
	}
}

// specOf is the object as --export shows it.
func specOf(t *testing.T, c *console, o api.Object) string {
	t.Helper()
	args := []string{"get", api.KindOf(o).Name, o.GetName(), "-o", "yaml", "--export"}
	if ns := o.GetNamespace(); ns != "" {
		args = append(args, "-n", ns)
	}
	_, out, _ := c.run("", args...)
	return out
}

// hard holds values that YAML likes to take for others.
const hard = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: a, labels: {yes: "yes", n: "1", e: "1e3", o: "0777", t: "true"}, annotations: {k: "line\nä: <&>\n", e: ""}}
spec: {cidr: 10.1.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: b}
spec: {cidr: "fd00::/64"}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: web}
spec:
  order: 1000000000000
  selector: a == 'it is "x"'
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [80, "1:59", "10:20", http]}}
  - {action: Deny, protocol: 132}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 4294967295, nodeMeshMaxRestartTime: 90s}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {nodeSelector: rack == 'a', peerIP: "[fd00::1]:1179", asNumber: 4200000000, filters: [f], keepaliveTime: 30s, ttlSecurity: 0}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: f}
spec: {exportV4: [{action: Accept, cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 0}, asPathPrefix: [64512], operations: [{addCommunity: {value: "1:2"}}]}]}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [{protocol: tcp, port: 22}], vxlanVNI: 4096, ipv6Support: true}
`
