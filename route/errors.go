package route

import (
	"errors"
	"fmt"
	"net/netip"
)

// What stands in the way of a route.
var (
	ErrNoInterface = errors.New("the interface does not exist (yet)")
	ErrDown        = errors.New("the interface is down")
	ErrForeign     = errors.New("a route that is not ours stands in the way")
	ErrGateway     = errors.New("the gateway cannot be reached directly")
	ErrInvalid     = errors.New("invalid route")
)

// Error is why one route could not be set or deleted. The others went on.
type Error struct {
	Dst     netip.Prefix
	Device  string     // if the route names one
	Gateway netip.Addr // if the route has one
	Err     error      // wraps one of the above, or an errno
}

func (e *Error) Error() string {
	s := "route " + e.Dst.String()
	if e.Gateway.IsValid() {
		s += " via " + e.Gateway.String()
	}
	if e.Device != "" {
		s += " dev " + e.Device
	}
	return fmt.Sprintf("%s: %v", s, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }
