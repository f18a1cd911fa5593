package cni

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/calicogo/calico/cni/wire"
)

// replay does, at start and again every while, what could not be done when it was due:
// DELs that the plugin wrote down while no agent answered, and addresses that could not
// be given back while the datastore was away.
func (s *Server) replay(ctx context.Context) {
	t := time.NewTicker(s.cfg.Replay)
	defer t.Stop()
	for {
		s.replayJournal(ctx)
		s.releasePending(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// releasePending takes away the devices of interrupted ADDs and DELs, datastore or none,
// and then gives their addresses back.
func (s *Server) releasePending(ctx context.Context) {
	for _, rec := range s.cfg.Records.Pending() {
		s.tell(rec.ID.ContainerID, s.locked(rec, s.removePendingLink))
	}
	for _, rec := range s.cfg.Records.Pending() {
		if ctx.Err() != nil {
			return
		}
		err := s.locked(rec, func(now *Record) error { return s.finish(ctx, now) })
		s.tell(rec.ID.ContainerID, err)
		if unanswered(err) {
			return // the others would wait in vain as well
		}
	}
}

// removePendingLink removes the device of a record that is still Releasing.
func (s *Server) removePendingLink(rec *Record) error {
	if rec.State != Releasing {
		return nil
	}
	err := s.removeOwnLink(rec)
	s.step("pending device removed")
	return err
}

// finish gives back the addresses of a record that is still Releasing.
func (s *Server) finish(ctx context.Context, rec *Record) error {
	if rec.State != Releasing {
		return nil
	}
	if err := s.release(ctx, rec); err != nil {
		return err
	}
	return s.forget(rec)
}

// abandoned is how old a journal's unfinished file is when nobody can be writing it any
// more.
const abandoned = time.Hour

func (s *Server) replayJournal(ctx context.Context) {
	entries, err := os.ReadDir(s.cfg.Journal)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	s.tell(s.cfg.Journal, err)
	for _, e := range entries {
		if ctx.Err() != nil {
			return
		}
		path := filepath.Join(s.cfg.Journal, e.Name())
		if !strings.HasPrefix(e.Name(), ".") {
			s.tell(path, s.replayOne(ctx, path))
		} else if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > abandoned {
			s.tell(path, os.Remove(path))
		}
	}
}

func (s *Server) replayOne(ctx context.Context, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var w wire.Request
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	if w.Command != "DEL" {
		return errors.New("it is not a DEL")
	}
	if _, err := s.handle(ctx, &w, nil); err != nil {
		return err
	}
	s.step("DEL of the journal done")
	return os.Remove(path)
}

// tell logs why something cannot be done yet, when the reason is new. It is replay's own.
func (s *Server) tell(what string, err error) {
	if err == nil {
		delete(s.told, what)
		return
	}
	if s.told[what] == err.Error() {
		return
	}
	s.told[what] = err.Error()
	s.cfg.Log.Warn("what was put off cannot be done yet", "what", what, "error", err)
}
