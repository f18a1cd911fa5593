package cni

import (
	"encoding/json"
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

// TestRecordsHaveNamesOfTheirOwn: a dash may stand in a container's ID and in a device's
// name.
func TestRecordsHaveNamesOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, netlink.Current)
	one, two := record("a-b", Attached), record("a", Attached)
	one.ID.IfName, two.ID.IfName = "c", "b-c"
	put(t, r, one, two)
	r = open(t, dir, netlink.Current)
	if len(r.All()) != 2 || r.Get(one.ID) == nil || r.Get(two.ID) == nil || len(r.Bad()) > 0 {
		t.Errorf("got %+v, bad %v", r.All(), r.Bad())
	}
}

func TestRecordsOfEarlierVersionsAreRead(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, netlink.Current)
	put(t, r, record("old", Attached), record("both", Attached))
	older := record("both", Attached)
	older.Pod = "older"
	b, err := json.Marshal(older)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "both-eth0.json"), b, 0o600)
	}
	if err == nil {
		err = os.Rename(filepath.Join(dir, "old@eth0.json"), filepath.Join(dir, "old-eth0.json"))
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r = open(t, dir, netlink.Current)
		if got := r.Get(record("old", "").ID); got == nil || got.State != Attached || len(r.Bad()) > 0 {
			t.Fatalf("got %+v, bad %v", got, r.Bad())
		}
		if got := r.Get(record("both", "").ID); got.Pod != "both" {
			t.Errorf("the older of two files wins: %+v", got)
		}
	}
	if err := r.Remove(record("old", "").ID); err != nil {
		t.Error(err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 || files[0].Name() != "both@eth0.json" {
		t.Errorf("left: %v", files)
	}
}
