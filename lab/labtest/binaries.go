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

// clients is the directory of the programs that only ask a lab or its datastore. Tests run them
// a thousand times; with the race detector, which finds little in programs that do one thing
// after another, each start costs 80 ms of a processor instead of 20.
func clients(bin string) string {
	if dir := filepath.Join(bin, "client"); raceEnabled && bin == build.dir {
		return dir
	}
	return bin
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
	root := filepath.Join(filepath.Dir(here), "..", "..")
	args, env := []string{"-o", dir}, os.Environ()
	if raceEnabled {
		args = append(args, "-race")
		if err := goBuild(root, append(env, "CGO_ENABLED=0"), "-o", filepath.Join(dir, "client")+"/", "./cmd/calicoctl", "./cmd/calico-lab"); err != nil {
			return dir, err
		}
	}
	return dir, goBuild(root, env, append(args, "./cmd/calico", "./cmd/calico-cni", "./cmd/calicoctl", "./cmd/calico-lab")...)
}

func goBuild(root string, env []string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Dir, cmd.Env = root, env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %q: %w\n%s", args, err, out)
	}
	return nil
}
