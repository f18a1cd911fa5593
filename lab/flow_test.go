package lab

import (
	"bufio"
	"io"
	"net"
	"testing"
)

// TestFlowClosed holds that a listener that hangs up is told from one that resets.
func TestFlowClosed(t *testing.T) {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		lines := bufio.NewReader(far)
		lines.ReadString('\n')
		io.WriteString(far, "b\n")
		lines.ReadString('\n')
	}()
	f := &heldFlow{conn: near, lines: bufio.NewReader(near)}
	f.hold(t.Context(), FlowRequest{Every: 1})
	if f.end != FlowClosed || f.answered != 1 {
		t.Errorf("%s after %d answers, want %s after 1", f.end, f.answered, FlowClosed)
	}
}
