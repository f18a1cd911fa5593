package reconcile

import (
	"context"
	"maps"
	"testing"
)

// seen is a kernel of which notifications tell.
type seen struct {
	objects map[string]int
	lists   int
}

func (k *seen) List(context.Context) (map[string]int, error) {
	k.lists++
	return maps.Clone(k.objects), nil
}

func (k *seen) Apply(_ context.Context, set, del map[string]int) error {
	maps.Copy(k.objects, set)
	for x := range del {
		delete(k.objects, x)
	}
	return nil
}

func TestSaw(t *testing.T) {
	k := &seen{objects: map[string]int{}}
	table := NewTable(k, func(have, want int) bool { return have == want })
	if !table.Saw("a", 1, true) {
		t.Error("no news, though nothing was read yet")
	}
	table.Set("a", 1)
	table.Set("b", 2)
	sync := func() {
		t.Helper()
		if err := table.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(k.objects, map[string]int{"a": 1, "b": 2}) {
			t.Fatalf("the kernel has %v", k.objects)
		}
	}
	sync()
	saw := func(key string, v int, exists, news bool) {
		t.Helper()
		if got := table.Saw(key, v, exists); got != news {
			t.Errorf("%s = %d, there %v: news %v, want %v", key, v, exists, got, news)
		}
	}
	saw("a", 1, true, false) // our own
	saw("c", 3, false, false)
	delete(k.objects, "a")
	saw("a", 1, false, true)
	sync()
	k.objects["b"] = 7
	saw("b", 7, true, true)
	k.objects["c"] = 3
	saw("c", 3, true, true)
	sync()
	saw("b", 7, true, true) // late: it is set once more
	sync()
	clear(k.objects)
	if !table.Lost(func(string, int) bool { return true }) {
		t.Error("no news of all lost")
	}
	if table.Lost(func(string, int) bool { return true }) {
		t.Error("news of nothing lost")
	}
	sync()
	if k.lists != 1 {
		t.Errorf("the kernel was listed %d times, want once", k.lists)
	}
	if v, ok := table.Has("b"); !ok || v != 2 {
		t.Errorf("b is believed to be %d, %v", v, ok)
	}
}
