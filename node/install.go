package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// installPlugin copies the CNI plugin to the runtime's directory under the names that
// configurations use.
func installPlugin(binDir string) error {
	src, err := Sibling("calico-cni")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(binDir, 0o755); err != nil {
		return fmt.Errorf("install the CNI plugin: %w", err)
	}
	for _, name := range []string{"calico", "calico-ipam"} {
		if err := copyFile(src, filepath.Join(binDir, name), 0o755); err != nil {
			return fmt.Errorf("install the CNI plugin: %w", err)
		}
	}
	return nil
}

// Sibling finds a program of ours: beside the running one, then on PATH.
func Sibling(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(self), name)
		if st, err := os.Stat(p); err == nil && !st.IsDir() {
			return p, nil
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside this program nor on PATH", name)
	}
	return p, nil
}

// writeConflist writes the network configuration that the container runtime waits for.
func writeConflist(dir, name string) error {
	conf := map[string]any{
		"name":       "k8s-pod-network",
		"cniVersion": "1.1.0",
		"plugins": []any{map[string]any{
			"type": "calico",
			"ipam": map[string]any{"type": "calico-ipam"},
		}},
	}
	b, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write the CNI configuration: %w", err)
	}
	if err := replaceFile(filepath.Join(dir, name), append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the CNI configuration: %w", err)
	}
	return nil
}

// replaceFile writes a file whole: a reader sees the old content or the new.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	return replace(path, mode, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

func copyFile(src, dst string, mode os.FileMode) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	return replace(dst, mode, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
}

// replace fills a file beside path and renames it. There is one writer, which holds the
// node's lock, so the file beside has one name: what a killed process left is overwritten.
func replace(path string, mode os.FileMode, fill func(io.Writer) error) error {
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	tmp, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	err = errors.Join(fill(tmp), tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		os.Remove(name)
	}
	return err
}
