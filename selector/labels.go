package selector

// Labels are what a selector is matched against.
type Labels interface {
	// Get returns the value of the named label and whether it is present.
	Get(name string) (value string, present bool)
}

// Map is Labels held in a map.
type Map map[string]string

// Get implements Labels.
func (m Map) Get(name string) (string, bool) {
	v, ok := m[name]
	return v, ok
}
