package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// The lab is the container runtime of its nodes: it calls the CNI plugin through libcni,
// with the configuration that the node's agent installed.

const (
	cniConf = "/etc/cni/net.d/10-calico.conflist"
	cniBin  = "/opt/cni/bin"
)

func randomID() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails, crypto/rand
	return hex.EncodeToString(b)
}

// pluginTime is how long the lab, as a runtime, waits for a CNI plugin.
const pluginTime = 60 * time.Second

// add calls CNI ADD and returns the pod's addresses.
func (p *pod) add(ctx context.Context) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, pluginTime)
	defer cancel()
	conf, err := p.cniConfig()
	if err != nil {
		return nil, err
	}
	result, err := p.cni().AddNetworkList(ctx, conf, p.runtimeConf())
	if err != nil {
		return nil, cniError(err)
	}
	r, err := current.GetResult(result)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, ip := range r.IPs {
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return nil, fmt.Errorf("CNI result has the address %q", ip.Address.IP)
		}
		addrs = append(addrs, a.Unmap())
	}
	if len(addrs) == 0 {
		return nil, errors.New("CNI result has no address")
	}
	return addrs, nil
}

// del calls CNI DEL, whoever asked for it: what is half done would be in the way.
func (p *pod) del() error {
	ctx, cancel := context.WithTimeout(context.Background(), pluginTime)
	defer cancel()
	conf, err := p.cniConfig()
	if err != nil {
		return err
	}
	return cniError(p.cni().DelNetworkList(ctx, conf, p.runtimeConf()))
}

// cniError drops what libcni wraps round the plugin's own message.
func cniError(err error) error {
	var e *types.Error
	if errors.As(err, &e) {
		if e.Details != "" {
			return fmt.Errorf("CNI error %d: %s; %s", e.Code, e.Msg, e.Details)
		}
		return fmt.Errorf("CNI error %d: %s", e.Code, e.Msg)
	}
	return err
}

func (p *pod) cni() *libcni.CNIConfig {
	cache := filepath.Join(p.node.state, "cni-cache")
	return libcni.NewCNIConfigWithCacheDir([]string{cniBin}, cache, &nodeExec{node: p.node})
}

func (p *pod) runtimeConf() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: p.container,
		NetNS:       p.ns.path(),
		IfName:      podInterface,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", p.name.Namespace},
			{"K8S_POD_NAME", p.name.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", p.container},
		},
	}
}

// cniConfig is the node's configuration with what is known of the pod in the `args` of each
// plugin, from where Calico's takes it when there is no Kubernetes to ask.
func (p *pod) cniConfig() (*libcni.NetworkConfigList, error) {
	b, err := os.ReadFile(p.node.file(cniConf))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s: its agent is not ready", p.node.name, cniConf)
	}
	if err != nil {
		return nil, err
	}
	var list map[string]any
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", p.node.name, cniConf, err)
	}
	plugins, _ := list["plugins"].([]any)
	for _, plugin := range plugins {
		if m, ok := plugin.(map[string]any); ok {
			m["args"] = map[string]any{"org.projectcalico": map[string]any{
				"labels": p.labels, "serviceAccount": p.account, "ports": p.ports,
			}}
		}
	}
	return libcni.ConfListFromBytes([]byte(encode(list)))
}

// nodeExec runs CNI plugins inside a node. It implements invoke.Exec of libcni.
type nodeExec struct {
	version.PluginDecoder
	node *node
}

// FindInPath returns where the plugin is in the node.
func (e *nodeExec) FindInPath(plugin string, paths []string) (string, error) {
	for _, dir := range paths {
		path := filepath.Join(dir, plugin)
		if _, err := os.Stat(e.node.file(path)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s has no CNI plugin %s in %v", e.node.name, plugin, paths)
}

// ExecPlugin runs the plugin and returns what it printed.
func (e *nodeExec) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(environ, "GORACE=atexit_sleep_ms=0")
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := e.node.ns.start(cmd); err != nil {
		return nil, err
	}
	err := cmd.Wait()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("killed, because it did not end within %v: the agent of %s may hang, see `calico lab status`", pluginTime, e.node.name)
	}
	if err != nil {
		return nil, pluginError(err, stdout.Bytes(), stderr.String())
	}
	return stdout.Bytes(), nil
}

// pluginError is the error that the plugin printed (CNI specification, section 5).
func pluginError(err error, stdout []byte, stderr string) error {
	e := &types.Error{}
	if json.Unmarshal(stdout, e) == nil && e.Msg != "" {
		return e
	}
	return fmt.Errorf("CNI plugin: %w: %s%s", err, stdout, stderr)
}
