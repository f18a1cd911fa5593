package labelindex

import (
	"fmt"
	"testing"
)

// TestValues: a label's values are found, listed and removed, however many there are.
func TestValues(t *testing.T) {
	for _, most := range []int{1, fewValues, fewValues + 1, 3 * fewValues} {
		var vs values[string, int]
		held := map[string]*value[string, int]{}
		text := func(i int) string { return fmt.Sprint("v", i) }
		check := func() {
			t.Helper()
			listed := map[string]bool{}
			for v := range vs.all() {
				if listed[v.text] || held[v.text] != v {
					t.Errorf("of %d: %s is listed twice, or is not there", most, v.text)
				}
				listed[v.text] = true
			}
			if len(listed) != len(held) || vs.len() != len(held) {
				t.Errorf("of %d: %d values, %d listed, want %d", most, vs.len(), len(listed), len(held))
			}
			for i := range most + 1 {
				if vs.get(text(i)) != held[text(i)] {
					t.Errorf("of %d: %s is not as it should be", most, text(i))
				}
			}
		}
		for i := range most {
			v := &value[string, int]{text: text(i)}
			held[v.text] = v
			vs.add(v)
			check()
		}
		for i := range most {
			if i%3 == 0 {
				vs.remove(held[text(i)])
				delete(held, text(i))
				check()
			}
		}
		for range vs.all() {
			break
		}
	}
}
