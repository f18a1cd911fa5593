package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// siblingBinary finds a binary of the project beside the running one, else on PATH.
func siblingBinary(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(beside); err == nil && info.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("the binary %s is neither beside calico-lab nor on PATH: build it with make", name)
	}
	return filepath.Abs(path)
}
