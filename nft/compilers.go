package nft

import "github.com/calicogo/calico/filter"

// Compilers returns the compilers of the families. After a Sync without error the kernel holds their
// programs.
func (d *Driver) Compilers() []*filter.Compiler {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*filter.Compiler
	for _, t := range d.tables {
		out = append(out, t.compiler)
	}
	return out
}
