package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pair is the two ends of a connection.
func pair(t *testing.T) (client, server *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return ends[0], ends[1]
}

func TestCallAndAnswer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ns, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	big := strings.Repeat("x", Limit/2) // more than one read
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			c, err := l.AcceptUnix()
			if err != nil {
				return err
			}
			defer c.Close()
			r, f, err := Receive(c)
			if err != nil {
				return err
			}
			defer f.Close()
			var conf struct{ X string }
			if err := json.Unmarshal(r.Config, &conf); err != nil {
				return err
			}
			if st, err := f.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 || r.Command != "ADD" || conf.X != big {
				return fmt.Errorf("got %s, %d bytes, %v, %v", r.Command, len(conf.X), st.Mode(), err)
			}
			return Reply(c, &Response{Output: json.RawMessage(`{"ok":1}`)})
		}()
	}()
	resp, err := Call(t.Context(), socket, &Request{Command: "ADD", Config: json.RawMessage(`{"x":"` + big + `"}`)}, ns)
	if err != nil || string(resp.Output) != `{"ok":1}` || resp.Error != nil {
		t.Errorf("got %+v, %v", resp, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Call(ctx, socket, &Request{Config: json.RawMessage("{}")}, nil); err == nil {
		t.Error("no error although nobody answers")
	}
}

// descriptors counts what the process has open.
func descriptors(t *testing.T) map[string]string {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]string{}
	for _, n := range names {
		if to, err := os.Readlink("/proc/self/fd/" + n.Name()); err == nil {
			open[n.Name()] = to
		}
	}
	return open
}

// sendRaw sends text and n descriptors of a file.
func sendRaw(c *net.UnixConn, text, file string, n int) error {
	var fds []int
	for range n {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		fds = append(fds, int(f.Fd()))
	}
	if text == "" {
		return nil
	}
	sent, _, err := c.WriteMsgUnix([]byte(text), syscall.UnixRights(fds...), nil)
	if err == nil && sent < len(text) { // writing nothing to a peer that has gone is an error too
		_, err = io.WriteString(c, text[sent:])
	}
	return err
}

func TestReceiveRefusesAndKeepsNoDescriptor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "some-file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		fds        int
		says       string
	}{
		{"nothing", "", 0, "EOF"},
		{"half a request", `{"command":`, 1, "unexpected EOF"},
		{"no JSON", "hello", 1, "invalid character"},
		{"wrong type", `{"command":7}`, 1, "command"},
		{"two descriptors", `{"command":"ADD"}`, 2, "more than one descriptor"},
		{"two hundred", `{"command":"ADD"}`, 200, "more than one descriptor"},
		{"huge", `{"args":"` + strings.Repeat("x", 2*Limit), 1, "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := pair(t)
			done := make(chan error, 1)
			go func() { done <- errors.Join(sendRaw(client, c.text, file, c.fds), client.Close()) }()
			r, ns, err := Receive(server)
			if err == nil || ns != nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %+v, %v, %v; want an error with %q", r, ns, err, c.says)
			}
			server.Close()
			if err := <-done; err != nil && len(c.text) < Limit { // a huge one is not read to its end
				t.Error(err)
			}
			for fd, to := range descriptors(t) {
				if to == file {
					t.Errorf("descriptor %s is open", fd)
				}
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		id, ifName string
		ok         bool
	}{
		{"c1", "eth0", true},
		{"0123456789abcdef_.-", "net1", true},
		{strings.Repeat("c", 200), "123456789012345", true},
		{strings.Repeat("c", 201), "eth0", false},
		{"", "eth0", false},
		{"../c", "eth0", false},
		{".c", "eth0", false},
		{"c/d", "eth0", false},
		{"c", "", false},
		{"c", "..", false},
		{"c", "a/b", false},
		{"c", "a b", false},
		{"c", "a:b", false},
		{"c", "1234567890123456", false},
		{"c", strings.Repeat("ü", 8), false}, // 16 bytes
	} {
		r := Request{Command: "ADD", ContainerID: c.id, IfName: c.ifName}
		if err := r.Validate(); (err == nil) != c.ok {
			t.Errorf("container %q, interface %q: got %v", c.id, c.ifName, err)
		}
	}
}

func TestSeconds(t *testing.T) {
	for s, want := range map[float64]time.Duration{-1: 0, 0: 0, 0.5: 500 * time.Millisecond, 1e300: 10 * time.Minute} {
		if got := Seconds(s); got != want {
			t.Errorf("%v: got %v, want %v", s, got, want)
		}
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"command":"ADD","containerID":"c","ifName":"eth0","args":"A=B;C","config":{"name":"n"}}`))
	f.Add([]byte(`{"config":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		client, server := pair(t)
		go func() {
			client.Write(b)
			client.Close()
		}()
		if r, _, err := Receive(server); err == nil {
			_ = r.Validate()
			ParseArgs(r.Args)
		}
	})
}
