package ctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store/etcd"
)

// DefaultConfigFile says where the datastore is, if the command line does not.
const DefaultConfigFile = "/etc/calico/calicoctl.cfg"

// dialTimeout bounds the wait for a datastore that cannot be reached.
const dialTimeout = 5 * time.Second

// connectionFile is the form of the file. The fields are upstream's.
type connectionFile struct {
	api.Meta `json:",inline"`
	Spec     connectionSpec `json:"spec"`
}

type connectionSpec struct {
	DatastoreType string `json:"datastoreType,omitempty"`

	EtcdEndpoints    string `json:"etcdEndpoints,omitempty"` // separated by commas
	EtcdDiscoverySrv string `json:"etcdDiscoverySrv,omitempty"`
	EtcdUsername     string `json:"etcdUsername,omitempty"`
	EtcdPassword     string `json:"etcdPassword,omitempty"`
	EtcdKeyFile      string `json:"etcdKeyFile,omitempty"`
	EtcdCertFile     string `json:"etcdCertFile,omitempty"`
	EtcdCACertFile   string `json:"etcdCACertFile,omitempty"`
	EtcdKey          string `json:"etcdKey,omitempty"`
	EtcdCert         string `json:"etcdCert,omitempty"`
	EtcdCACert       string `json:"etcdCACert,omitempty"`

	// For a datastore in Kubernetes; of no meaning for etcd.
	Kubeconfig               string  `json:"kubeconfig,omitempty"`
	KubeconfigInline         string  `json:"kubeconfigInline,omitempty"`
	K8sAPIEndpoint           string  `json:"k8sAPIEndpoint,omitempty"`
	K8sKeyFile               string  `json:"k8sKeyFile,omitempty"`
	K8sCertFile              string  `json:"k8sCertFile,omitempty"`
	K8sCAFile                string  `json:"k8sCAFile,omitempty"`
	K8sAPIToken              string  `json:"k8sAPIToken,omitempty"`
	K8sInsecureSkipTLSVerify bool    `json:"k8sInsecureSkipTLSVerify,omitempty"`
	K8sDisableNodePoll       bool    `json:"k8sDisableNodePoll,omitempty"`
	K8sUsePodCIDR            bool    `json:"usePodCIDR,omitempty"`
	K8sClientQPS             float32 `json:"k8sClientQPS,omitempty"`
	K8sCurrentContext        string  `json:"k8sCurrentContext,omitempty"`
	CalicoAPIGroup           string  `json:"calicoAPIGroup,omitempty"`
}

// connection says where the datastore is: what the environment says, and for the rest what
// the file says. The file must exist if the user named it.
func (c *cli) connection(named bool) (etcd.Config, error) {
	spec, err := readConnection(c.config, named)
	if err != nil {
		return etcd.Config{}, err
	}
	spec.override(c.Environ)
	return spec.etcd(c.config)
}

func readConnection(file string, must bool) (connectionSpec, error) {
	body, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return connectionSpec{}, nil
	}
	if err != nil {
		return connectionSpec{}, readError(file, err)
	}
	docs, err := api.Documents(file, body)
	if err != nil {
		return connectionSpec{}, err
	}
	if len(docs) != 1 || docs[0].APIVersion != api.GroupVersion || docs[0].Kind != "CalicoAPIConfig" {
		return connectionSpec{}, fmt.Errorf("%s: want one document of apiVersion %s and kind CalicoAPIConfig", file, api.GroupVersion)
	}
	var f connectionFile
	err = docs[0].Into(&f)
	return f.Spec, err
}

// override takes from environ what it says: ETCD_ENDPOINTS or, first, CALICO_ETCD_ENDPOINTS.
func (s *connectionSpec) override(environ []string) {
	env := map[string]string{}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && v != "" {
			env[k] = v
		}
	}
	for name, field := range map[string]*string{
		"DATASTORE_TYPE": &s.DatastoreType, "ETCD_ENDPOINTS": &s.EtcdEndpoints, "ETCD_DISCOVERY_SRV": &s.EtcdDiscoverySrv,
		"ETCD_USERNAME": &s.EtcdUsername, "ETCD_PASSWORD": &s.EtcdPassword, "ETCD_KEY_FILE": &s.EtcdKeyFile,
		"ETCD_CERT_FILE": &s.EtcdCertFile, "ETCD_CA_CERT_FILE": &s.EtcdCACertFile,
	} {
		for _, n := range []string{name, "CALICO_" + name} {
			if v, ok := env[n]; ok {
				*field = v
			}
		}
	}
}

// etcd is s as configuration of the etcd store.
func (s *connectionSpec) etcd(file string) (etcd.Config, error) {
	switch {
	case s.DatastoreType == "kubernetes":
		return etcd.Config{}, errors.New("datastore type kubernetes is not supported yet: use etcdv3 (DATASTORE_TYPE, spec.datastoreType)")
	case s.DatastoreType != "" && s.DatastoreType != "etcdv3":
		return etcd.Config{}, fmt.Errorf("datastore type %q: want etcdv3 (DATASTORE_TYPE, spec.datastoreType)", s.DatastoreType)
	case s.EtcdDiscoverySrv != "":
		return etcd.Config{}, errors.New("discovery of etcd by DNS is not supported: set ETCD_ENDPOINTS in place of ETCD_DISCOVERY_SRV (etcdEndpoints, etcdDiscoverySrv)")
	case s.EtcdKey != "" || s.EtcdCert != "" || s.EtcdCACert != "":
		return etcd.Config{}, errors.New("keys and certificates within the configuration are not supported: write them to files and set etcdKeyFile, etcdCertFile and etcdCACertFile")
	case s.DatastoreType == "" && s.EtcdEndpoints == "":
		return etcd.Config{}, fmt.Errorf("no datastore is configured: set ETCD_ENDPOINTS, for example to %s, or spec.etcdEndpoints in %s", etcd.DefaultEndpoint, file)
	}
	c := etcd.Config{
		CAFile: s.EtcdCACertFile, CertFile: s.EtcdCertFile, KeyFile: s.EtcdKeyFile,
		Username: s.EtcdUsername, Password: s.EtcdPassword, DialTimeout: dialTimeout,
	}
	for e := range strings.SplitSeq(s.EtcdEndpoints, ",") {
		if e = strings.TrimSpace(e); e != "" {
			c.Endpoints = append(c.Endpoints, e)
		}
	}
	c = c.Defaults()
	return c, c.Validate()
}
