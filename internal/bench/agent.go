package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/netlink"
	"github.com/calicogo/calico/store"
)

const (
	nodeName  = "bench"
	agentLog  = "/run/agent.log"
	libDir    = "/var/lib/calico"
	statusURL = "http://node/status"
)

// agent is a `calico node` on a machine.
type agent struct {
	*machine
	server *server
	cmd    *exec.Cmd
	env    []string
	http   *http.Client
}

// newAgent makes the machine, an etcd with the namespace that pods will be in, and starts
// the agent, with some more in its environment. All ends with the row.
func (b *bench) newAgent(ctx context.Context, env ...string) *agent {
	s := got(startServer(ctx, "etcd"))
	b.cleanup(s.stop)
	p := &api.Profile{Meta: api.Named(api.KindProfile, "", api.NamespaceProfile+"default")}
	p.Spec.Ingress, p.Spec.Egress = []api.Rule{{Action: api.Allow}}, []api.Rule{{Action: api.Allow}}
	p.Spec.LabelsToApply = map[string]string{api.NamespaceLabelPrefix + "projectcalico.org/name": "default"}
	got(s.store.Commit(ctx, []store.Op{store.Put(p)}))
	a := &agent{machine: got(newMachine(0)), server: s, env: env}
	b.cleanup(a.close)
	a.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", "/run/calico/node.sock")
	}}}
	os.Truncate(agentLog, 0)
	must(a.start())
	b.cleanup(func() {
		a.kill()
		os.RemoveAll(libDir + "/cni")
		if b.options.Keep {
			log, _ := os.ReadFile(agentLog)
			os.Stderr.Write(log)
		}
	})
	must(a.ready(ctx))
	return a
}

// start starts the process.
func (a *agent) start() error {
	log, err := os.OpenFile(agentLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/bin/calico", "node")
	cmd.Env = []string{
		"NODENAME=" + nodeName, "DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=" + a.server.endpoint, "IP=" + a.addr.String(), "IP6=none",
		"CALICO_IPV4POOL_CIDR=10.65.0.0/16", "CALICO_IPV4POOL_IPIP=Never", "CALICO_IPV4POOL_VXLAN=Never", "CALICO_IPV4POOL_NAT_OUTGOING=false",
		"PATH=/bin",
	}
	cmd.Env = slices.Concat(cmd.Env, a.env, agentEnv())
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	a.cmd = cmd
	return netlink.Do(int(a.Fd()), cmd.Start)
}

// agentEnv is what the environment has for the agent: BENCH_AGENT_X=y is X=y to it.
func agentEnv() (env []string) {
	for _, kv := range os.Environ() {
		if rest, ok := bytes.CutPrefix([]byte(kv), []byte("BENCH_AGENT_")); ok {
			env = append(env, string(rest))
		}
	}
	return env
}

// kill ends the process as a crash does.
func (a *agent) kill() {
	if a.cmd != nil {
		a.cmd.Process.Kill()
		a.cmd.Wait()
		a.cmd = nil
	}
}

// status is what the agent says of itself.
type status struct {
	Ready      bool
	Revision   int64
	Conditions []struct {
		Type    string
		OK      bool
		Message string
	}
}

func (a *agent) status(ctx context.Context, query string) (s status, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, statusURL+query, nil)
	if err != nil {
		return s, err
	}
	r, err := a.http.Do(req)
	if err != nil {
		return s, err
	}
	defer r.Body.Close()
	return s, json.NewDecoder(r.Body).Decode(&s)
}

// holds waits until the kernel holds a revision.
func (a *agent) holds(ctx context.Context, rev store.Revision) error {
	s, err := a.status(ctx, fmt.Sprintf("?revision=%d&wait=%v", rev, patience))
	if err == nil && s.Revision < rev {
		err = fmt.Errorf("the agent is at revision %d, not %d: %+v", s.Revision, rev, s.Conditions)
	}
	return err
}

// ready waits until pods can be added.
func (a *agent) ready(ctx context.Context) error {
	for until := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		s, err := a.status(ctx, "")
		if err == nil && s.Ready {
			return nil
		}
		if time.Now().After(until) {
			log, _ := os.ReadFile(agentLog)
			return fmt.Errorf("the agent is not ready: %v, %+v\n%s", err, s, log[max(0, len(log)-2000):])
		}
	}
}
