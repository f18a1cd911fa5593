package lab_test

import (
	"strings"
	"testing"

	"github.com/calicogo/calico/lab"
	"github.com/calicogo/calico/lab/labtest"
)

// The story holds, whatever is between the nodes.
func TestDemo(t *testing.T) {
	t.Parallel()
	for _, encap := range lab.Encaps {
		t.Run(encap, func(t *testing.T) {
			t.Parallel()
			l := labtest.New(t)
			out := l.Must(t, "demo", "--encap", encap)
			if !strings.Contains(out, " checks, 0 failed") {
				t.Errorf("the demo says\n%s", out)
			}
			if r := l.Run(t, "status", "--name", "demo"); !strings.Contains(r.Stderr, "is not up") {
				t.Errorf("after the demo status says %q", r.Stderr)
			}
		})
	}
}
