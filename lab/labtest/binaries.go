package labtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

var build struct {
	once sync.Once
	dir  string
	err  error
}

// Binaries returns a directory with the project's binaries, built once a test process,
// with the race detector where the test has it; or $CALICO_LAB_BIN, which has them. The
// package's TestMain must call [RemoveBinaries].
func Binaries(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("CALICO_LAB_BIN"); dir != "" {
		return dir
	}
	build.once.Do(func() { build.dir, build.err = buildBinaries() })
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.dir
}

// RemoveBinaries removes what Binaries built.
func RemoveBinaries() {
	if build.dir != "" {
		os.RemoveAll(build.dir)
	}
}

func buildBinaries() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	dir, err := os.MkdirTemp("", "labbin")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	args := []string{"build", "-o", dir}
	if raceEnabled {
		args = append(args, "-race")
	}
	for _, name := range []string{"calico", "calico-cni", "calicoctl", "calico-lab"} {
		args = append(args, "./cmd/"+name)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join(filepath.Dir(here), "..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go %q: %w\n%s", args, err, out)
	}
	return dir, nil
}
