// Command faults plants mistakes in the sources, one at a time, and holds that the differential test
// finds each within a minute. The sources stay as they are: the mistake is in an overlay of the go
// command. It is run in the module's root, as root:
//
//	go run ./internal/difftest/faults [-run REGEXP] [-limit 1m] [-seed N]
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	run := flag.String("run", "", "only the faults whose names match this `regexp`")
	limit := flag.Duration("limit", time.Minute, "how long a fault may stay unfound")
	flag.Parse()
	if err := plant(".", *run, *limit); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

// plant plants all faults whose names match. It goes on after one that is not found.
func plant(root, pattern string, limit time.Duration) error {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	dir, err := os.MkdirTemp("", "faults")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("%-58s %8s  %s\n", "fault", "found in", "by")
	survived := 0
	for _, f := range faults {
		if !match.MatchString(f.name) {
			continue
		}
		took, by, err := f.find(root, dir, limit)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if by == "" {
			survived++
			fmt.Printf("%-58s %8s  nothing: it survives\n", f.name, "-")
			continue
		}
		fmt.Printf("%-58s %6.1f s  %s\n", f.name, took.Seconds(), by)
	}
	if survived > 0 {
		return fmt.Errorf("%d faults were not found within %v", survived, limit)
	}
	return nil
}

// find builds the differential test with the fault and runs it; by is what it says when it fails,
// and empty if it does not within the limit.
func (f *fault) find(root, dir string, limit time.Duration) (took time.Duration, by string, err error) {
	test := filepath.Join(dir, "test")
	if err := f.build(root, dir, test); err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, test, "-test.run", "^TestOneVerdict$", "-test.timeout", "0")
	cmd.Dir = filepath.Join(root, "internal/difftest")
	cmd.Env = append(os.Environ(), "DIFFTEST_STATES=1000000000", "CI=true")
	cmd.WaitDelay = time.Second
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	took = time.Since(begin)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return took, "", nil
	case !errors.As(err, &exit):
		return took, "", fmt.Errorf("the test ended without a failure: %v\n%s", err, out)
	}
	return took, reason(out), nil
}

// build makes the test's binary, with the fault in it.
func (f *fault) build(root, dir, binary string) error {
	text, err := f.apply(root)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(filepath.Join(root, f.file))
	if err != nil {
		return err
	}
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, text, 0o600); err != nil {
		return err
	}
	b, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(overlay, b, 0o600); err != nil {
		return err
	}
	cmd := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, "./internal/difftest")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("it does not build any more: %w\n%s", err, out)
	}
	return nil
}

// apply returns the file's text with the fault in it.
func (f *fault) apply(root string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, f.file))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(text, []byte(f.was)); n != 1 {
		return nil, fmt.Errorf("%s has this text %d times, want once; write the fault anew: %s", f.file, n, f.was)
	}
	return bytes.Replace(text, []byte(f.was), []byte(f.is), 1), nil
}

var said = regexp.MustCompile(`round (\d+): (\S+?) does not agree: ([^;\n]*)|round (\d+): (.*)`)

// reason is what the test said when it failed, in short.
func reason(out []byte) string {
	m := said.FindStringSubmatch(string(out))
	switch {
	case m == nil:
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return "another failure: " + first
	case m[1] != "":
		return fmt.Sprintf("%s in state %s: %s", m[2], m[1], m[3])
	}
	return fmt.Sprintf("state %s: %s", m[4], m[5])
}
