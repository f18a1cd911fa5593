package node

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"testing"

	"github.com/calicogo/calico/felix"
)

func newTestBoard() *board { return newBoard("n1", felix.New(felix.Config{Node: "n1"})) }

func TestBoardTellsWhatIsNews(t *testing.T) {
	b := newTestBoard()
	for i, c := range []struct {
		err     error
		news    bool
		trouble string
	}{
		{nil, false, ""},
		{errors.New("no answer"), true, "datastore: no answer"},
		{errors.New("no answer"), false, "datastore: no answer"},
		{errors.New("refused"), true, "datastore: refused"},
		{nil, true, ""},
		{nil, false, ""},
	} {
		_, _, changed := b.status()
		if news := b.note("datastore", c.err); news != c.news || b.trouble() != c.trouble {
			t.Errorf("%d: %v: news %v, trouble %q", i, c.err, news, b.trouble())
		}
		select {
		case <-changed:
			if !c.news {
				t.Errorf("%d: a change is told though there is none", i)
			}
		default:
			if c.news {
				t.Errorf("%d: the change is not told", i)
			}
		}
	}
}

func TestStatusIsServed(t *testing.T) {
	b := newTestBoard()
	b.note("address", errors.New("n2 has it too"))
	for path, want := range map[string]int{
		"/status": 200, "/status?revision=0&wait=1ms": 200, "/status?revision=x": 400, "/status?revision=1&wait=soon": 400, "/else": 404,
	} {
		w := httptest.NewRecorder()
		b.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		var s Status
		if want == 200 {
			if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || s.Node != "n1" || s.Ready || len(s.Conditions) != 1 {
				t.Errorf("%s: %+v, %v", path, s, err)
			}
		}
	}
	for _, ready := range []int{503, 200} {
		w := httptest.NewRecorder()
		b.health().ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), "GET", "/readiness", nil))
		if w.Code != ready {
			t.Errorf("readiness %d, want %d", w.Code, ready)
		}
		b.setReady()
	}
}
