package cni

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/internal/nstest"
	"github.com/calicogo/calico/netlink"
)

func record(id string, s State) *Record {
	return &Record{
		ID: dataplane.AttachmentID{ContainerID: id, IfName: "eth0"}, State: s, Handle: "n." + id, Pod: id,
		Interface: dataplane.Interface("cali" + id), Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		Endpoint: &api.WorkloadEndpoint{Meta: api.Named(api.KindWorkloadEndpoint, "default", id)},
	}
}

func open(t *testing.T, dir string, ns int) *Records {
	t.Helper()
	r, err := OpenRecords(dir, ns)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func put(t *testing.T, r *Records, recs ...*Record) {
	t.Helper()
	for _, rec := range recs {
		if err := r.Put(rec); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordsOutliveTheirProcess(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, netlink.Current)
	put(t, r, record("on", Attached), record("half", Adding), record("off", Releasing), record("gone", Attached))
	if err := r.Remove(record("gone", "").ID); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(record("gone", "").ID); err != nil {
		t.Errorf("removing twice: %v", err)
	}
	r = open(t, dir, netlink.Current)
	var fed []string
	r.Subscribe(func(id dataplane.AttachmentID, at *dataplane.Attachment) {
		if at == nil {
			fed = append(fed, "-"+id.ContainerID)
		} else {
			fed = append(fed, "+"+id.ContainerID)
		}
	})
	if got := strings.Join(fed, " "); got != "+on" {
		t.Errorf("fed %q, want the attached one", got)
	}
	for _, c := range []struct {
		id   string
		want State
	}{{"on", Attached}, {"half", Releasing}, {"off", Releasing}} {
		if got := r.Get(record(c.id, "").ID); got == nil || got.State != c.want {
			t.Errorf("%s: %+v, want state %s", c.id, got, c.want)
		}
	}
	fed = nil
	rec := r.Get(record("on", "").ID)
	rec.State = Releasing
	put(t, r, rec, record("half", Attached), record("late", Adding))
	if got := strings.Join(fed, " "); got != "-on +half" {
		t.Errorf("fed %q", got)
	}
}

func TestRecordsOfAnotherNamespaceOrBootArePendingDels(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, nstest.New(t))
	put(t, r, record("here", Attached))
	other := open(t, dir, nstest.New(t))
	if got := other.Get(record("here", "").ID); got.State != Releasing {
		t.Errorf("in another namespace: state %s", got.State)
	}
	r.bootID = "another"
	put(t, r, record("here", Attached))
	r.bootID = ""
	again := &Records{dir: dir, all: map[dataplane.AttachmentID]*Record{}, bootID: "now", netns: r.netns}
	if err := again.load(); err != nil {
		t.Fatal(err)
	}
	if got := again.Get(record("here", "").ID); got.State != Releasing {
		t.Errorf("after a reboot: state %s", got.State)
	}
}

func TestTornRecordIsReportedAndKept(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, netlink.Current)
	put(t, r, record("good", Attached))
	torn := filepath.Join(dir, "torn@eth0.json")
	renamed := filepath.Join(dir, "other@eth0.json")
	good, err := os.ReadFile(filepath.Join(dir, "good@eth0.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{torn: good[:len(good)/2], renamed: good, filepath.Join(dir, ".tmp-1"): good} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r = open(t, dir, netlink.Current)
	if len(r.Bad()) != 2 || len(r.All()) != 1 {
		t.Errorf("bad %v, all %v", r.Bad(), r.All())
	}
	for _, name := range []string{torn, renamed} {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(r.Bad()[0].Error()+r.Bad()[1].Error(), name) {
			t.Errorf("%s is not named in %v", name, r.Bad())
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ".tmp-1")); err == nil {
		t.Error("an unfinished file is left")
	}
	if st, err := os.Stat(filepath.Join(dir, "good@eth0.json")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}
