package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/calicogo/calico/netlink"
)

// errNoProgram says that a program has gone since its filter was listed.
var errNoProgram = errors.New("the program is gone")

// adopt opens the maps that our filters' programs use, as far as spec can use them too. The
// encapsulating program comes first, then the others by link: where they differ, as after
// an end in the middle of a change, the first has it.
func adopt(h *netlink.Handle, spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	all, err := list(h)
	if err != nil {
		return nil, err
	}
	kept := map[string]*ebpf.Map{}
	for _, f := range inOrder(all) {
		if err := adoptFrom(f, spec, kept); err != nil && !errors.Is(err, errNoProgram) {
			closeAll(kept)
			return nil, err
		}
	}
	return kept, nil
}

func inOrder(m map[int]filter) []filter {
	var fs []filter
	for _, f := range m {
		fs = append(fs, f)
	}
	rank := func(f filter) int {
		if Role(f.name) == Encapsulates {
			return 0
		}
		return 1
	}
	slices.SortFunc(fs, func(a, b filter) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.link, b.link)) })
	return fs
}

// adoptFrom adds the maps of one program.
func adoptFrom(f filter, spec *ebpf.CollectionSpec, kept map[string]*ebpf.Map) error {
	info, err := programInfo(f.program)
	if err != nil {
		return err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open eBPF map %d: %w", id, err)
		}
		name := ""
		if i, err := m.Info(); err == nil {
			name = i.Name
		}
		if want := spec.Maps[name]; want == nil || kept[name] != nil || want.Compatible(m) != nil {
			m.Close()
			continue
		}
		kept[name] = m
	}
	return nil
}

// programInfo describes a program by its id.
func programInfo(id int) (*ebpf.ProgramInfo, error) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoProgram
	}
	if err != nil {
		return nil, fmt.Errorf("open eBPF program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, fmt.Errorf("describe eBPF program %d: %w", id, err)
	}
	return info, nil
}

func closeAll(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}
