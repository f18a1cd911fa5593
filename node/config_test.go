package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/calicogo/calico/config"
)

func TestFromEnviron(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodename")
	if err := os.WriteFile(file, []byte("written\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		env  []string
		name string
		says string // or the error
	}{
		{[]string{"NODENAME=n1", "HOSTNAME=h"}, "n1", ""},
		{[]string{"HOSTNAME=Host.example"}, "host.example", ""},
		{[]string{"HOSTNAME=h", "CALICO_NODENAME_FILE=" + file}, "written", ""},
		{[]string{"NODENAME=a/b"}, "", `NODENAME: "a/b"`},
		{[]string{"NODENAME=../../x"}, "", "NODENAME"},
		{[]string{"NODENAME=n1", "DATASTORE_TYPE=kubernetes"}, "", "etcdv3 only"},
		{[]string{"NODENAME=n1", "IP=10.0.0.300"}, "", "IP=10.0.0.300"},
		{[]string{"NODENAME=n1", "IP=fd00::1"}, "", "the other family"},
		{[]string{"NODENAME=n1", "IP6_AUTODETECTION_METHOD=fastest"}, "", "IP6_AUTODETECTION_METHOD=fastest"},
		{[]string{"NODENAME=n1", "ETCD_ENDPOINTS=foo"}, "", "foo"},
	} {
		got, err := FromEnviron(append([]string{"CALICO_NODENAME_FILE=/nonexistent"}, c.env...))
		switch {
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%v: got %v, want an error with %q", c.env, err, c.says)
		case c.says == "" && (err != nil || got.Name != c.name):
			t.Errorf("%v: got %q, %v; want %q", c.env, got.Name, err, c.name)
		}
	}
}

func TestFelixFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "felix.cfg")
	if l, err := felixFile(path); err != nil || len(l.Values) != 0 {
		t.Errorf("no file: %v, %v", l, err)
	}
	if err := os.WriteFile(path, []byte("[global]\nLogPrefix = file\nVXLANPort = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := felixFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, errs := config.Resolve(config.FromEnviron([]string{"FELIX_VXLANPORT=2"}), l)
	if f.LogPrefix != "file" || f.VXLANPort != 2 || len(errs) > 0 {
		t.Errorf("%q, %d, %v", f.LogPrefix, f.VXLANPort, errs)
	}
	if _, err := felixFile(t.TempDir()); err == nil {
		t.Error("a file that cannot be read counts as none")
	}
}
