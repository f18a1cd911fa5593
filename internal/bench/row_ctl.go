package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/calicogo/calico/api"
)

const ctlPolicies = 1000

// runCtl measures calicoctl as whole processes, with no agent beside etcd.
func runCtl(ctx context.Context, b *bench) error {
	s := got(startServer(ctx, "ctl"))
	b.cleanup(s.stop)
	all := policies(0, ctlPolicies)
	must(os.WriteFile("/tmp/policies.json", list(all), 0o600))
	bodies := got(encode(all))
	var create, again, get, putFloor, getFloor samples
	for range b.n(4, 15) {
		got(s.raw.Delete(ctx, "/", clientv3.WithPrefix()))
		create.took(s.ctl("create", "-f", "/tmp/policies.json"))
		start := time.Now()
		got(execEmpty())
		must(s.puts(ctx, bodies))
		putFloor.since(start)
		again.took(s.ctl("apply", "-f", "/tmp/policies.json"))
	}
	for range b.n(30, 150) {
		get.took(s.ctl("get", "tiers"))
		start := time.Now()
		got(execEmpty())
		got(s.raw.Get(ctx, "/calico/resources/v3/projectcalico.org/tiers/", clientv3.WithPrefix()))
		getFloor.since(start)
	}
	what := fmt.Sprintf("calicoctl: create %d policies", ctlPolicies)
	b.report(result{What: what, Unit: "ms", Ours: create, Floor: putFloor, Aim: "2x, 200 ms"})
	b.report(result{What: "calicoctl: apply them again", Unit: "ms", Ours: again, Floor: putFloor, Aim: "2x, 200 ms"})
	b.report(result{What: "calicoctl get", Unit: "ms", Ours: get, Floor: getFloor, Aim: "15 ms"})
	return nil
}

func list(all []api.Object) []byte {
	b, _ := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": all}) // our own types
	return b
}

// ctl runs calicoctl.
func (s *server) ctl(args ...string) time.Duration {
	cmd := exec.Command("/bin/calicoctl", args...)
	cmd.Env = []string{"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=" + s.endpoint}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		must(fmt.Errorf("calicoctl %v: %w: %.500s", args, err, out.Bytes()))
	}
	return time.Since(start)
}

// puts writes bodies, 128 a transaction, to keys of their own.
func (s *server) puts(ctx context.Context, bodies [][]byte) error {
	for i := 0; i < len(bodies); {
		var ops []clientv3.Op
		for ; i < len(bodies) && len(ops) < 128; i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprint("/floor/policy", i), string(bodies[i])))
		}
		if _, err := s.raw.Txn(ctx).Then(ops...).Commit(); err != nil {
			return err
		}
	}
	return nil
}
