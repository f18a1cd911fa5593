package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"time"
)

// pod is a sandbox as a container runtime has it.
type pod struct {
	*netns
	name      string
	container string
	labels    map[string]string
	addr      netip.Addr
}

func newPod(name string, labels map[string]string) (*pod, error) {
	n, err := newNS()
	if err != nil {
		return nil, err
	}
	id := make([]byte, 32)
	for i := range id {
		id[i] = byte(rand.Uint32())
	}
	return &pod{netns: n, name: name, container: hex.EncodeToString(id), labels: labels}, nil
}

// conf is the network configuration as libcni hands it on.
func (p *pod) conf() []byte {
	c := map[string]any{
		"name": "k8s-pod-network", "cniVersion": "1.0.0", "type": "calico",
		"ipam": map[string]any{"type": "calico-ipam"},
	}
	if len(p.labels) > 0 {
		c["args"] = map[string]any{"org.projectcalico": map[string]any{"labels": p.labels}}
	}
	b, _ := json.Marshal(c) // strings and maps
	return b
}

// call is one run of the plugin.
type call struct {
	took  time.Duration
	state *os.ProcessState
	out   []byte
}

// command is a run of the plugin as libcni has it.
func (p *pod) command(verb string, conf []byte) *exec.Cmd {
	cmd := exec.Command("/bin/calico-cni")
	cmd.Env = []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + p.container, "CNI_NETNS=" + p.path(), "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + p.name + ";K8S_POD_INFRA_CONTAINER_ID=" + p.container,
		"PATH=/bin",
	}
	cmd.Stdin = bytes.NewReader(conf)
	return cmd
}

// cni runs the plugin to its end.
func (p *pod) cni(verb string) (call, error) {
	var stdout, stderr bytes.Buffer
	cmd := p.command(verb, p.conf())
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	c := call{time.Since(start), cmd.ProcessState, stdout.Bytes()}
	if err != nil {
		return c, fmt.Errorf("CNI %s of %s: %w: %s%s", verb, p.name, err, stdout.Bytes(), stderr.Bytes())
	}
	return c, nil
}

// add attaches the pod and notes its address.
func (p *pod) add() (call, error) {
	c, err := p.cni("ADD")
	if err != nil {
		return c, err
	}
	var r struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(c.out, &r); err != nil || len(r.IPs) == 0 {
		return c, fmt.Errorf("CNI ADD of %s answered %s: %v", p.name, c.out, err)
	}
	p.addr = r.IPs[0].Address.Addr()
	return c, nil
}

// execEmpty runs the empty program with the pipes that a plugin gets.
func execEmpty() (*os.ProcessState, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("/bin/bench-empty")
	cmd.Env = []string{"PATH=/bin"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader([]byte("{}")), &stdout, &stderr
	err := cmd.Run()
	return cmd.ProcessState, err
}
