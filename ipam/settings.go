package ipam

import (
	"context"
	"errors"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

const (
	defaultMaxBlocks = 20
	defaultRest      = 60 * time.Second

	// settingsAge is for how long the settings that were read are taken as current.
	settingsAge = 30 * time.Second

	// minClaim is how long a block is left to the node that claimed it, even if it is
	// empty, so that nodes do not take it from one another before they can use it.
	minClaim = time.Minute
)

// settings is what an IPAMConfiguration says.
type settings struct {
	strict     bool // addresses come from the node's own blocks only
	autoClaim  bool // the node may claim further blocks
	maxBlocks  int  // of one family that the node may have
	rest       time.Duration
	validUntil time.Time
}

func settingsOf(c *api.IPAMConfiguration) settings {
	s := settings{autoClaim: true, maxBlocks: defaultMaxBlocks, rest: defaultRest}
	if c == nil {
		return s
	}
	s.strict = c.Spec.StrictAffinity
	if c.Spec.AutoAllocateBlocks != nil {
		s.autoClaim = *c.Spec.AutoAllocateBlocks
	}
	if c.Spec.MaxBlocksPerHost > 0 {
		s.maxBlocks = c.Spec.MaxBlocksPerHost
	}
	if c.Spec.IPCooldownSeconds != nil {
		s.rest = time.Duration(*c.Spec.IPCooldownSeconds) * time.Second
	}
	return s
}

// readSettings reads the settings unless they were read lately.
func (a *Allocator) readSettings(ctx context.Context, now time.Time) error {
	left := a.settings.validUntil.Sub(now)
	if left > 0 && left <= settingsAge {
		return nil
	}
	o, err := a.store.Get(ctx, store.Key{Kind: api.KindIPAMConfiguration.Name, Name: "default"})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	c, _ := o.(*api.IPAMConfiguration)
	a.settings = settingsOf(c)
	a.settings.validUntil = now.Add(settingsAge)
	return nil
}
