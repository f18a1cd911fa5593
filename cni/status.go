package cni

import (
	"context"
	"fmt"

	"github.com/calicogo/calico/cni/wire"
	"github.com/calicogo/calico/ipam"
)

// status answers STATUS: 50 while an ADD cannot work, 51 while, besides, attached pods may
// lack part of their network, as the CNI specification has it.
func (s *Server) status(ctx context.Context) error {
	if !s.open.Load() {
		return wire.Errorf(wire.CodeNotAvailable, "%s", s.waitsFor())
	}
	if s.cfg.Limited != nil {
		if err := s.cfg.Limited(); err != nil {
			return wire.Errorf(wire.CodeLimited, "%v", err)
		}
	}
	if s.cfg.Unable != nil {
		if err := s.cfg.Unable(); err != nil {
			return wire.Errorf(wire.CodeNotAvailable, "%v", err)
		}
	}
	if err := s.havePool(ctx); err != nil {
		return wire.Errorf(wire.CodeNotAvailable, "%v", err)
	}
	return nil
}

// havePool says why no pod can be given an address, whatever it asks for. Which pool a pod
// gets, and whether it has room, is told by its ADD.
func (s *Server) havePool(ctx context.Context) error {
	pools, _, err := s.cfg.Pools(ctx)
	if err != nil {
		return err
	}
	for _, p := range pools {
		if !p.Spec.Disabled {
			return nil
		}
	}
	return fmt.Errorf("%w: there is no IPPool that is not disabled", ipam.ErrNoPool)
}
