package dataplane

import "fmt"

// nameOf is the name of x in a list of names, or, where it has none, its number: what is
// wrong in a value must be printed, not panic.
func nameOf[T ~uint8](x T, names ...string) string {
	if int(x) < len(names) && names[x] != "" {
		return names[x]
	}
	return fmt.Sprintf("unknown (%d)", uint8(x))
}
