package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/calicogo/calico/store/etcd/etcdtest"
)

// program is calicoctl with an environment of its own.
type program struct{ environ []string }

// path is calicoctl, built as make builds it.
var path string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "calicoctl")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	path = filepath.Join(dir, "calicoctl")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X github.com/calicogo/calico/ctl.Version=v9.8.7", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func (p program) run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = p.environ, strings.NewReader(stdin), &out, &errOut
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

const objects = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.10.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: allow, namespace: web}
spec: {selector: all()}
`

// The program against etcd, from configuration to exit code.
func TestProgram(t *testing.T) {
	p := program{}
	server := etcdtest.StartServer(t)
	config := filepath.Join(t.TempDir(), "calicoctl.cfg")
	text := "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec: {datastoreType: etcdv3, etcdEndpoints: " + server.Endpoint + "}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		stdin, args string
		code        int
		out, err    string
	}{
		{"", "version --client", 0, "Client Version:    v9.8.7\n", ""},
		{"", "version", 1, "Client Version:    v9.8.7\n", "Unable to retrieve Cluster Version or Type: resource does not exist: ClusterInformation(default): no node has written it yet\n"},
		{objects, "apply -f -", 0, "Successfully applied 2 resource(s)\n", ""},
		{"", "get pools", 0, "NAME   CIDR           SELECTOR\npool   10.10.0.0/16   all()\n", ""},
		{"", "get np -A", 0, "NAMESPACE   NAME    TIER\nweb         allow   default\n", ""},
		{objects, "create -f -", 1, "", "Failed to create any resources: resource already exists: IPPool(pool)\n"},
		{objects, "replace -f -", 0, "Successfully replaced 2 resource(s)\n", ""},
		{strings.ReplaceAll(objects, "name: pool", "name: other"), "apply -f -", 1, "", "Failed to apply any resources: IPPool pool (10.10.0.0/16) overlaps IPPool other (10.10.0.0/16): pools must not share addresses\n"},
		{"", "delete np allow -n web", 0, "Successfully deleted 1 'NetworkPolicy' resource(s)\n", ""},
		{"", "delete np allow -n web", 1, "", "Failed to delete 'NetworkPolicy' resource: resource does not exist: NetworkPolicy(web/allow)\n"},
		{"", "get nosuch", 2, "", "unknown kind \"nosuch\"; known kinds: "},
	} {
		code, out, errOut := p.run(t, c.stdin, append(strings.Fields(c.args), "-c", config)...)
		if code != c.code || out != c.out || !strings.HasPrefix(errOut, c.err) || (c.err == "") != (errOut == "") {
			t.Errorf("%s: exit code %d, %q, %q\nwant %d, %q, %q", c.args, code, out, errOut, c.code, c.out, c.err)
		}
	}
	code, out, errOut := p.run(t, "", "get", "pool", "pool", "-o", "json", "-c", config)
	if code != 0 || errOut != "" || !strings.Contains(out, `"resourceVersion": "`) || !strings.Contains(out, `"creationTimestamp": "2`) {
		t.Errorf("exit code %d, %s%s", code, out, errOut)
	}
	kv, err := server.Client().Get(t.Context(), "/calico/resources/v3/projectcalico.org/ippools/pool")
	if err != nil || len(kv.Kvs) != 1 {
		t.Errorf("the pool is not where upstream has it: %v, error %v", kv, err)
	}
}

// What is in the datastore but no object is named, and can be replaced and deleted.
func TestUnreadable(t *testing.T) {
	p := program{}
	server := etcdtest.StartServer(t)
	p.environ = append(p.environ, "ETCD_ENDPOINTS="+server.Endpoint)
	const key = "/calico/resources/v3/projectcalico.org/ippools/"
	for _, name := range []string{"pool", "worse"} {
		if _, err := server.Client().Put(t.Context(), key+name, "{"); err != nil {
			t.Fatal(err)
		}
	}
	left := func(err, name string) bool { return strings.Contains(err, "left out "+key+name+": ") }
	code, out, errOut := p.run(t, "", "get", "pools")
	if code != 1 || out != "NAME   CIDR   SELECTOR\n" || !left(errOut, "pool") || !left(errOut, "worse") || strings.Count(errOut, "\n") != 2 {
		t.Errorf("exit code %d, %q, %q", code, out, errOut)
	}
	code, out, errOut = p.run(t, objects, "apply", "-f", "-")
	if code != 0 || out != "Successfully applied 2 resource(s)\n" || !left(errOut, "worse") {
		t.Errorf("exit code %d, %q, %q", code, out, errOut)
	}
	code, out, errOut = p.run(t, "", "delete", "pool", "pool", "worse")
	if code != 0 || out != "Successfully deleted 2 'IPPool' resource(s)\n" || errOut != "" {
		t.Errorf("exit code %d, %q, %q", code, out, errOut)
	}
}

// A datastore that cannot be reached is one line with the true cause.
func TestUnreachable(t *testing.T) {
	p := program{}
	gone := filepath.Join(t.TempDir(), "socket")
	p.environ = append(p.environ, "ETCD_ENDPOINTS=unix://"+gone)
	for _, args := range [][]string{{"get", "pools"}, {"delete", "pool", "x"}, {"version"}} {
		code, _, errOut := p.run(t, "", args...)
		if code != 1 || strings.Count(errOut, "\n") != 1 || !strings.Contains(errOut, gone+": connect: no such file or directory") {
			t.Errorf("%v: exit code %d, %q", args, code, errOut)
		}
	}
}
