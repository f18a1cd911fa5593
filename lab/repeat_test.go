package lab_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"rsc.io/script"

	"github.com/calicogo/calico/lab/labtest"
)

// repeat is a script command that runs a command N times.
func repeat(l *labtest.Lab, s *script.State, args []string) (string, error) {
	if len(args) < 2 {
		return "", script.ErrUsage
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", script.ErrUsage
	}
	for range n {
		if out, err := verb(l, s, args[1:]).CombinedOutput(); err != nil {
			return string(out), err
		}
	}
	return "", nil
}

// until is a script command that runs a command again until it prints what matches PATTERN.
func until(l *labtest.Lab, s *script.State, args []string) (string, error) {
	if len(args) < 2 {
		return "", script.ErrUsage
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	if err != nil {
		return "", err
	}
	for tries := 0; ; tries++ {
		out, err := verb(l, s, args[1:]).CombinedOutput()
		switch {
		case err == nil && pattern.Match(out):
			return string(out), nil
		case tries == 200:
			return string(out), fmt.Errorf("%q is not to be seen (%v)", args[0], err)
		}
		select {
		case <-s.Context().Done():
			return string(out), s.Context().Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// verb is a command of `calico lab`, or calicoctl.
func verb(l *labtest.Lab, s *script.State, args []string) *exec.Cmd {
	cmd := l.Command(s.Context(), args...)
	if args[0] == "calicoctl" {
		cmd = calicoctl(l, s, args[1:])
	}
	cmd.Dir = s.Getwd()
	return cmd
}

func calicoctl(l *labtest.Lab, s *script.State, args []string) *exec.Cmd {
	cmd := exec.CommandContext(s.Context(), filepath.Join(l.Client, "calicoctl"), args...)
	cmd.Env = append(l.Environ(), "DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=unix://"+l.Base+"/lab/etcd.sock")
	return cmd
}
