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

func (s *Server) releasePending(ctx context.Context) {
	for _, rec := range s.cfg.Records.Pending() {
		if ctx.Err() != nil {
			return
		}
		if err := s.releaseLocked(ctx, rec); err != nil {
			s.cfg.Log.Warn("a pod's addresses cannot be given back yet", "container", rec.ID.ContainerID, "error", err)
			return // the datastore is away: the others would wait in vain as well
		}
	}
}

func (s *Server) releaseLocked(ctx context.Context, rec *Record) error {
	unlock := s.pods.lock(rec.Namespace + "/" + rec.Pod)
	defer unlock()
	now := s.cfg.Records.Get(rec.ID)
	if now == nil || now.State != Releasing {
		return nil
	}
	if err := s.removeOwnLink(now); err != nil {
		return err
	}
	if err := s.release(ctx, now); err != nil {
		return err
	}
	return s.cfg.Records.Remove(now.ID)
}

// removeOwnLink removes the device of an ADD that was interrupted, unless another sandbox
// of the pod uses it.
func (s *Server) removeOwnLink(rec *Record) error {
	if rec.Interface == "" {
		return nil
	}
	for _, other := range s.cfg.Records.Of(rec.Interface) {
		if other.ID != rec.ID && other.State != Releasing {
			return nil
		}
	}
	return removeLink(s.host, string(rec.Interface))
}

func (s *Server) replayJournal(ctx context.Context) {
	entries, err := os.ReadDir(s.cfg.Journal)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Log.Warn("the CNI plugin's journal cannot be read", "dir", s.cfg.Journal, "error", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || ctx.Err() != nil {
			continue
		}
		path := filepath.Join(s.cfg.Journal, e.Name())
		if err := s.replayOne(ctx, path); err != nil {
			s.cfg.Log.Warn("a journalled DEL cannot be done yet", "file", path, "error", err)
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
	return os.Remove(path)
}
