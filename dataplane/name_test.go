package dataplane

import (
	"fmt"
	"testing"
)

// Values that no constant names print as such.
func TestNamesOfAnyValue(t *testing.T) {
	for x := range 256 {
		b := uint8(x)
		for _, v := range []fmt.Stringer{Action(b), Verdict(b), Period(b), Backend(b), Conn(b), Family(b)} {
			if v.String() == "" {
				t.Errorf("%T(%d) has no name", v, x)
			}
		}
	}
	if got := Log.String() + Action(5).String() + IPv6.String() + Family(0).String(); got != "logunknown (5)IPv6unknown (0)" {
		t.Error(got)
	}
}
