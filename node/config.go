package node

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/store/etcd"
)

// Config is what a node is told by its environment.
type Config struct {
	Name      string // of the Node resource
	Version   string // of the program, for ClusterInformation
	Datastore etcd.Config
	Felix     config.Layer // FELIX_*
	FelixFile config.Layer // felix.cfg; what it says counts where Felix says nothing

	IPv4, IPv6 AddressSetting
	Pools      []PoolSetting // created in a cluster that has none

	ManageCNI  bool   // install the CNI plugin and its configuration
	CNIConfDir string // default /etc/cni/net.d
	CNIConf    string // default 10-calico.conflist
	CNIBinDir  string // default /opt/cni/bin
	RunDir     string // sockets and lock; default /var/run/calico
	LibDir     string // records; default /var/lib/calico

	Sweep time.Duration // between two looks for what pods left behind; 0: five minutes
	// Step is called between any two steps of a pod's coming and going; nil but in
	// tests that kill the agent there. See [cni.Config].
	Step func(string)
}

// AddressSetting says how the node's address of one family is found.
type AddressSetting struct {
	Off    bool         // there is none
	Given  netip.Prefix // valid: this one; a single address takes the length of its interface's subnet
	Method Method       // else by this; empty: by the route to the datastore, else first-found
}

// FromEnviron reads the environment, named as upstream names it.
func FromEnviron(environ []string) (Config, error) {
	env := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	c := Config{
		Name:       env["NODENAME"],
		Felix:      config.FromEnviron(environ),
		ManageCNI:  isTrue(env["CALICO_MANAGE_CNI"]),
		CNIConfDir: or(env["CNI_NET_DIR"], "/etc/cni/net.d"),
		CNIConf:    or(env["CNI_CONF_NAME"], "10-calico.conflist"),
		CNIBinDir:  "/opt/cni/bin",
		RunDir:     "/var/run/calico",
		LibDir:     "/var/lib/calico",
	}
	if t := env["DATASTORE_TYPE"]; t != "" && t != "etcdv3" {
		return c, fmt.Errorf("DATASTORE_TYPE=%s: this build knows etcdv3 only", t)
	}
	var err error
	if c.FelixFile, err = felixFile(felixCfg); err != nil {
		return c, err
	}
	if c.Datastore, err = etcd.FromEnviron(environ); err != nil {
		return c, err
	}
	if c.Pools, err = defaultPools(env); err != nil {
		return c, err
	}
	if c.IPv4, err = addressSetting("IP", env["IP"], env["IP_AUTODETECTION_METHOD"]); err != nil {
		return c, err
	}
	if c.IPv6, err = addressSetting("IP6", env["IP6"], env["IP6_AUTODETECTION_METHOD"]); err != nil {
		return c, err
	}
	if c.Name == "" {
		if c.Name, err = ownName(env); err != nil {
			return c, err
		}
	}
	if err := (&api.Node{Meta: api.Named(api.KindNode, "", c.Name)}).Validate(); err != nil {
		return c, fmt.Errorf("NODENAME: %q cannot be a node's name: %w", c.Name, err)
	}
	return c, nil
}

// felixCfg is upstream's place for the agent's own configuration.
const felixCfg = "/etc/calico/felix.cfg"

// felixFile reads the file, if there is one.
func felixFile(path string) (config.Layer, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return config.Layer{}, fmt.Errorf("configuration file: %w", err)
	}
	return config.FromFile(path, string(b)), nil
}

// ownName is the name that an earlier start wrote down, else the host's.
func ownName(env map[string]string) (string, error) {
	file := or(env["CALICO_NODENAME_FILE"], "/var/lib/calico/nodename")
	if b, err := os.ReadFile(file); err == nil && len(strings.TrimSpace(string(b))) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	name := env["HOSTNAME"]
	if name == "" {
		h, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("no node name: set NODENAME: %w", err)
		}
		name = h
	}
	return strings.ToLower(strings.TrimSpace(name)), nil
}

func addressSetting(name, value, method string) (AddressSetting, error) {
	var a AddressSetting
	switch value {
	case "", "autodetect":
	case "none":
		a.Off = true
		return a, nil
	default:
		p, err := parseAddress(value)
		if err != nil {
			return a, fmt.Errorf("%s=%s: want an address such as 10.0.0.1 or 10.0.0.1/24, autodetect or none", name, value)
		}
		if p.Addr().Is4() != (name == "IP") {
			return a, fmt.Errorf("%s=%s is an address of the other family", name, value)
		}
		a.Given = p
	}
	m, err := ParseMethod(method)
	if err != nil {
		return a, fmt.Errorf("%s_AUTODETECTION_METHOD=%s: %w", name, method, err)
	}
	a.Method = m
	return a, nil
}

// parseAddress takes an address with or without its subnet's length; without, the
// prefix has the length of the whole address.
func parseAddress(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func (c *Config) socket(name string) string { return filepath.Join(c.RunDir, name) }

func isTrue(s string) bool {
	switch strings.ToLower(s) {
	case "true", "1", "yes", "y", "t":
		return true
	}
	return false
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
