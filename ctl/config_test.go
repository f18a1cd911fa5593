package ctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/calicogo/calico/store/etcd"
)

func TestConnection(t *testing.T) {
	const head = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n"
	full := etcd.Config{
		Endpoints: []string{"https://a:2379", "https://b:2379"},
		CAFile:    "/ca", CertFile: "/cert", KeyFile: "/key", Username: "u", Password: "p",
	}
	local := etcd.Config{Endpoints: []string{"http://127.0.0.1:2379"}}
	fullText := head + "  datastoreType: etcdv3\n  etcdEndpoints: https://a:2379, https://b:2379\n  etcdCACertFile: /ca\n  etcdCertFile: /cert\n  etcdKeyFile: /key\n  etcdUsername: u\n  etcdPassword: p\n"
	for _, c := range []struct {
		name    string
		file    string // its text; empty: there is none
		environ []string
		want    etcd.Config
		err     string // FILE stands for the file
	}{
		{name: "file", file: fullText, want: full},
		{name: "JSON file", file: `{"apiVersion": "projectcalico.org/v3", "kind": "CalicoAPIConfig", "spec": {"etcdEndpoints": "http://127.0.0.1:2379", "kubeconfig": "/k"}}`, want: local},
		{name: "environment", environ: []string{"ETCD_ENDPOINTS=https://a:2379,https://b:2379", "ETCD_CA_CERT_FILE=/ca", "ETCD_CERT_FILE=/cert", "ETCD_KEY_FILE=/key", "ETCD_USERNAME=u", "ETCD_PASSWORD=p", "DATASTORE_TYPE=etcdv3"}, want: full},
		{name: "type alone", environ: []string{"DATASTORE_TYPE=etcdv3"}, want: local},
		{name: "environment over file", file: head + "  datastoreType: kubernetes\n  etcdEndpoints: http://c:1\n", environ: []string{"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=http://127.0.0.1:2379"}, want: local},
		{name: "CALICO_ over bare", environ: []string{"CALICO_ETCD_ENDPOINTS=http://127.0.0.1:2379", "ETCD_ENDPOINTS=http://c:1"}, want: local},
		{name: "empty environment", file: head + "  etcdEndpoints: http://127.0.0.1:2379\n", environ: []string{"ETCD_ENDPOINTS=", "CALICO_DATASTORE_TYPE="}, want: local},
		{name: "nothing", err: "no file FILE"},
		{name: "nothing in file", file: head, err: "no datastore is configured: set ETCD_ENDPOINTS, for example to http://127.0.0.1:2379, or spec.etcdEndpoints in FILE"},
		{name: "kubernetes", environ: []string{"DATASTORE_TYPE=kubernetes"}, err: "datastore type kubernetes is not supported yet: use etcdv3 (DATASTORE_TYPE, spec.datastoreType)"},
		{name: "bad type", environ: []string{"DATASTORE_TYPE=zookeeper"}, err: `datastore type "zookeeper": want etcdv3 (DATASTORE_TYPE, spec.datastoreType)`},
		{name: "DNS", environ: []string{"ETCD_DISCOVERY_SRV=example.org"}, err: "discovery of etcd by DNS is not supported: set ETCD_ENDPOINTS in place of ETCD_DISCOVERY_SRV (etcdEndpoints, etcdDiscoverySrv)"},
		{name: "inline", file: head + "  etcdKey: abc\n", err: "keys and certificates within the configuration are not supported: write them to files and set etcdKeyFile, etcdCertFile and etcdCACertFile"},
		{name: "bad endpoint", environ: []string{"ETCD_ENDPOINTS=localhost"}, err: `etcd: endpoint "localhost": unknown scheme ""; want http://HOST:PORT, https://HOST:PORT, unix:///PATH or unixs:///PATH`},
		{name: "unknown field", file: head + "  etcdEndpoint: x\n", err: `FILE: document 1, line 5: unknown field "spec.etcdEndpoint"; did you mean "etcdEndpoints"?`},
		{name: "malformed", file: head + "  [\n", err: "FILE: document 1, line 6: malformed YAML: did not find expected node content"},
		{name: "other kind", file: "apiVersion: projectcalico.org/v3\nkind: IPPool\n", err: "FILE: want one document of apiVersion projectcalico.org/v3 and kind CalicoAPIConfig"},
		{name: "empty", file: "\n", err: "FILE: want one document of apiVersion projectcalico.org/v3 and kind CalicoAPIConfig"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "calicoctl.cfg")
			if c.file != "" {
				if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cl := &cli{Program: Program{Environ: c.environ}, config: file}
			named := c.environ == nil // else the file need not exist
			got, err := cl.connection(named)
			if c.err != "" {
				if want := strings.ReplaceAll(c.err, "FILE", file); err == nil || err.Error() != want {
					t.Errorf("error %v\nwant  %s", err, want)
				}
				return
			}
			want := c.want
			want.DialTimeout, want.RequestTimeout = dialTimeout, 10*time.Second
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("error %v, -want +got:\n%s", err, diff)
			}
		})
	}
}
