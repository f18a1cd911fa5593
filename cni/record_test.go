package cni

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	if files, _ := os.ReadDir(dir); len(files) != 2 || files[0].Name() != bootFile || files[1].Name() != "both@eth0.json" {
		t.Errorf("left: %v", files)
	}
}

// TestWhatAPowerFailureTore has files that were never on disk whole: those of the boot that
// went down go, those of this boot, or of one that is not known, stay and are reported.
func TestWhatAPowerFailureTore(t *testing.T) {
	for _, c := range []struct {
		name, boot string
		lost       bool
	}{{"this boot", "", false}, {"another boot", "4711", true}, {"not known", "none", false}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			r := open(t, dir, netlink.Current)
			put(t, r, record("good", Attached))
			marker := filepath.Join(dir, bootFile)
			if b, err := os.ReadFile(marker); err != nil || string(b) != r.bootID {
				t.Fatalf("the boot is noted as %q, %v", b, err)
			}
			torn := filepath.Join(dir, "torn@eth0.json")
			err := os.WriteFile(torn, nil, 0o600)
			switch c.boot {
			case "":
			case "none":
				err = errors.Join(err, os.Remove(marker))
			default:
				err = errors.Join(err, os.WriteFile(marker, []byte(c.boot), 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			r = open(t, dir, netlink.Current)
			_, gone := os.Lstat(torn)
			if errors.Is(gone, fs.ErrNotExist) != c.lost || len(r.Bad()) > 0 == c.lost {
				t.Errorf("the torn file: %v; reported: %v", gone, r.Bad())
			}
			if r.interrupted != c.lost || r.Get(record("good", "").ID) == nil {
				t.Errorf("interrupted: %v; records: %v", r.interrupted, r.All())
			}
			if b, err := os.ReadFile(marker); err != nil || string(b) != r.bootID {
				t.Errorf("the boot is noted as %q, %v", b, err)
			}
		})
	}
}

// TestARecordWaitsForNoOther has one file that takes its time: nothing but that record
// waits.
func TestARecordWaitsForNoOther(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, netlink.Current)
	var mu sync.Mutex
	fed := map[string]int{}
	r.Subscribe(func(id dataplane.AttachmentID, _ *dataplane.Attachment) {
		mu.Lock()
		defer mu.Unlock()
		fed[id.ContainerID]++
	})
	pipe := filepath.Join(dir, ".tmp-"+fileName(record("slow", "").ID))
	if err := unix.Mkfifo(pipe, 0o600); err != nil { // opened for writing, it waits for a reader
		t.Fatal(err)
	}
	slow := make(chan error, 1)
	go func() { slow <- r.Put(record("slow", Attached)) }()
	others := make(chan struct{})
	go func() {
		defer close(others)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				id := string(rune('a' + i))
				for _, s := range []State{Adding, Attached, Releasing} {
					if err := r.Put(record(id, s)); err != nil {
						t.Error(err)
					}
				}
				if err := r.Remove(record(id, "").ID); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		r.All()
	}()
	select {
	case <-others:
	case <-slow:
		t.Fatal("the slow one did not wait")
	case <-time.After(20 * time.Second):
		t.Error("the others wait for the slow one")
	}
	f, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := <-slow; err != nil {
		t.Error(err)
	}
	<-others
	for id, n := range fed {
		if want := map[bool]int{true: 1, false: 2}[id == "slow"]; n != want {
			t.Errorf("%s was fed %d times, want %d", id, n, want)
		}
	}
	if len(fed) != 9 {
		t.Errorf("fed: %v", fed)
	}
}
