package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/selector"
)

// pool is an IPPool that has been parsed.
type pool struct {
	name string
	cidr netip.Prefix
	size int // prefix length of its blocks
}

func parsePool(p *api.IPPool) (pool, error) {
	cidr, err := netip.ParsePrefix(p.Spec.CIDR)
	if err != nil {
		return pool{}, fmt.Errorf("IPPool(%s): spec.cidr: %w", p.Name, err)
	}
	cidr = cidr.Masked()
	max := cidr.Addr().BitLen()
	size := p.Spec.BlockSize
	if size == 0 {
		size = map[int]int{32: 26, 128: 122}[max]
	}
	if size < max-maxHostBits || size > max || size < cidr.Bits() {
		return pool{}, fmt.Errorf("IPPool(%s): spec.blockSize: %d: want %d to %d, and not less than the pool's %d",
			p.Name, size, max-maxHostBits, max, cidr.Bits())
	}
	return pool{p.Name, cidr, size}, nil
}

// holds tells whether the block lies in the pool.
func (p pool) holds(cidr netip.Prefix) bool {
	return p.cidr.Bits() <= cidr.Bits() && p.cidr.Contains(cidr.Addr())
}

func allows(p *api.IPPool, use api.IPPoolUse) bool {
	uses := p.Spec.AllowedUses
	if len(uses) == 0 { // upstream's default
		uses = []api.IPPoolUse{api.UseWorkload, api.UseTunnel}
	}
	return slices.Contains(uses, use)
}

// SelectPools returns the pools that may serve, in the order requested, else in the
// order given. nodeSelectors see the labels of node, namespaceSelectors those of the
// namespace; node may be nil, and the labels are nil for what has no namespace.
// Requested are names or CIDRs of pools; these need not match their selectors and may
// have assignmentMode Manual, as upstream, and one that does not exist or does not fit is
// an error. The error is an [ErrNoPool] and says which pool was passed over and why.
func SelectPools(pools []*api.IPPool, node *api.Node, namespace map[string]string, requested []string,
	family dataplane.Family, use api.IPPoolUse) ([]*api.IPPool, error) {
	if use == "" {
		use = api.UseWorkload
	}
	s := selection{pools: pools, namespace: namespace, family: family, use: use}
	if node != nil {
		s.node = node.Labels
	}
	if len(requested) > 0 {
		return s.named(requested)
	}
	return s.matching()
}

// selection is what pools are wanted for.
type selection struct {
	pools           []*api.IPPool
	node, namespace map[string]string // labels
	family          dataplane.Family
	use             api.IPPoolUse
}

func (s selection) matching() ([]*api.IPPool, error) {
	var fit []*api.IPPool
	var reasons []string
	for _, p := range s.pools {
		if f, err := familyOf(p); err == nil && f != s.family {
			continue
		}
		if why := s.unfit(p); why != "" {
			reasons = append(reasons, fmt.Sprintf("%s: %s", p.Name, why))
			continue
		}
		fit = append(fit, p)
	}
	switch {
	case len(fit) > 0:
		return fit, nil
	case len(reasons) == 0:
		return nil, fmt.Errorf("%w: there is no %v pool; create an IPPool", ErrNoPool, s.family)
	}
	return nil, fmt.Errorf("%w: no %v pool serves this %s: %s", ErrNoPool, s.family, s.use, strings.Join(reasons, "; "))
}

func (s selection) named(requested []string) ([]*api.IPPool, error) {
	var fit []*api.IPPool
	for _, r := range requested {
		p := s.find(r)
		if p == nil {
			return nil, fmt.Errorf("%w: requested pool %s does not exist", ErrNoPool, r)
		}
		if why := s.unfitNamed(p); why != "" {
			return nil, fmt.Errorf("%w: requested pool %s: %s", ErrNoPool, r, why)
		}
		if !slices.Contains(fit, p) {
			fit = append(fit, p)
		}
	}
	return fit, nil
}

// find finds a pool by its name or, if r is a CIDR, by its CIDR.
func (s selection) find(r string) *api.IPPool {
	cidr, err := netip.ParsePrefix(r)
	for _, p := range s.pools {
		if p.Name == r {
			return p
		}
		if c, errP := netip.ParsePrefix(p.Spec.CIDR); err == nil && errP == nil && c.Masked() == cidr.Masked() {
			return p
		}
	}
	return nil
}

// unfitNamed says why p cannot serve even if it is named.
func (s selection) unfitNamed(p *api.IPPool) string {
	f, err := familyOf(p)
	switch {
	case err != nil:
		return err.Error()
	case f != s.family:
		return fmt.Sprintf("%s is not an %v pool", p.Spec.CIDR, s.family)
	case p.DeletionTimestamp != nil:
		return "it is being deleted"
	case p.Spec.Disabled:
		return "it is disabled"
	case !allows(p, s.use):
		return fmt.Sprintf("its allowedUses do not include %s", s.use)
	}
	return ""
}

// unfit says why p cannot serve without being named.
func (s selection) unfit(p *api.IPPool) string {
	if why := s.unfitNamed(p); why != "" {
		return why
	}
	if p.Spec.AssignmentMode == api.AssignManual {
		return "its assignmentMode is Manual"
	}
	if why := mismatch("nodeSelector", p.Spec.NodeSelector, s.node); why != "" {
		return why
	}
	return mismatch("namespaceSelector", p.Spec.NamespaceSelector, s.namespace)
}

// mismatch says why the selector does not match; an empty selector matches.
func mismatch(field, text string, labels map[string]string) string {
	if text == "" {
		return ""
	}
	sel, err := selector.Parse(text)
	if err != nil {
		return fmt.Sprintf("its %s does not parse: %v", field, err)
	}
	if !sel.Matches(selector.Map(labels)) {
		return fmt.Sprintf("its %s %q does not match", field, text)
	}
	return ""
}

func familyOf(p *api.IPPool) (dataplane.Family, error) {
	cidr, err := netip.ParsePrefix(p.Spec.CIDR)
	if err != nil {
		return 0, fmt.Errorf("spec.cidr: %w", err)
	}
	return dataplane.FamilyOf(cidr.Addr()), nil
}
