package ctl_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/ctl"
	"github.com/calicogo/calico/kubeconv"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
	"github.com/calicogo/calico/store/memory"
)

var update = flag.Bool("update", false, "write what the commands print into the transcripts")

// console runs command lines against a store in memory, in a directory of its own.
type console struct {
	dir     string
	store   store.Store
	environ []string
}

func newConsole(t *testing.T) *console {
	m := memory.New()
	m.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	return &console{dir: t.TempDir(), store: m, environ: []string{"ETCD_ENDPOINTS=http://etcd:2379"}}
}

// run returns exit code and output. Files are those of the console's directory.
func (c *console) run(stdin string, args ...string) (code int, stdout, stderr string) {
	for i := 1; i < len(args); i++ {
		if files := args[i-1] == "-f" || args[i-1] == "-c"; files && args[i] != "-" {
			args[i] = filepath.Join(c.dir, args[i])
		}
	}
	var out, errOut bytes.Buffer
	p := ctl.Program{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errOut, Environ: c.environ}
	p.Open = func(context.Context, etcd.Config) (store.Store, error) { return c.store, nil }
	code = p.Run(context.Background(), args)
	clean := func(b bytes.Buffer) string { return strings.ReplaceAll(b.String(), c.dir+"/", "") }
	return code, clean(out), clean(errOut)
}

func (c *console) write(t *testing.T, name string, body []byte) {
	t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, body, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTranscripts runs the command lines of testdata, which begin with $, and compares
// what they print, what they print to stderr, marked by !, and their exit code. A line
// "$ put FILE" writes objects past calicoctl, as Calico itself does.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts: ", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			transcript(t, file)
		})
	}
}

func transcript(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := newConsole(t)
	for _, f := range archive.Files {
		c.write(t, f.Name, f.Data)
	}
	var got strings.Builder
	for line := range strings.Lines(string(archive.Comment)) {
		switch {
		case strings.HasPrefix(line, "$ "):
			got.WriteString(line)
			got.WriteString(c.line(t, strings.Fields(line[2:])))
		case strings.HasPrefix(line, "#"):
			got.WriteString(line)
		}
	}
	if *update {
		archive.Comment = []byte(got.String())
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(archive.Comment), got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

var uid = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// line runs one command line of a transcript; "< FILE" is its standard input.
func (c *console) line(t *testing.T, words []string) string {
	stdin := ""
	if n := len(words) - 2; n > 0 && words[n] == "<" {
		body, err := os.ReadFile(filepath.Join(c.dir, words[n+1]))
		if err != nil {
			t.Fatal(err)
		}
		stdin, words = string(body), words[:n]
	}
	if words[0] == "put" {
		c.put(t, words[1])
		return ""
	}
	code, stdout, stderr := c.run(stdin, words[1:]...)
	text := stdout
	for line := range strings.Lines(stderr) {
		text += "! " + line
	}
	if code != 0 {
		text += fmt.Sprintf("[exit code %d]\n", code)
	}
	return uid.ReplaceAllString(text, "UID")
}

func (c *console) put(t *testing.T, file string) {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := kubeconv.DecodeAll(file, body, "default")
	if err != nil {
		t.Fatal(err)
	}
	var ops []store.Op
	for _, o := range objects {
		ops = append(ops, store.Put(o))
	}
	if _, err := c.store.Commit(context.Background(), ops); err != nil {
		t.Fatal(err)
	}
}

// Every kind has its table in a transcript.
func TestTablesCoverKinds(t *testing.T) {
	text, err := os.ReadFile("testdata/tables.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range api.Kinds() {
		if !strings.Contains(string(text), "get "+strings.ToLower(k.Name)+" -o wide\n") {
			t.Errorf("testdata/tables.txtar does not show a table of kind %s", k.Name)
		}
	}
}
