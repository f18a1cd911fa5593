package ctl

import (
	"fmt"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/config"
	"github.com/calicogo/calico/store"
)

// checkAll defaults and checks objects by themselves and against each other.
func checkAll(v verb, objects []api.Object, o Options) error {
	seen := make(map[store.Key]bool, len(objects))
	var pools []*api.IPPool
	for _, obj := range objects {
		if err := check(v, obj, o); err != nil {
			return err
		}
		k := store.KeyOf(obj)
		if seen[k] {
			return fmt.Errorf("%v is given twice", k)
		}
		seen[k] = true
		if p, ok := obj.(*api.IPPool); ok && v != verbDelete {
			pools = append(pools, p)
		}
	}
	return api.OverlappingPools(pools)
}

// check defaults and checks one object by itself.
func check(v verb, o api.Object, opts Options) error {
	k := store.KeyOf(o)
	if why := notForUsers(v, o, opts); why != "" {
		return fmt.Errorf("%v: %s", k, why)
	}
	if v == verbDelete {
		return k.Check()
	}
	o.Default()
	if err := o.Validate(); err != nil {
		return fmt.Errorf("%v: %w", k, err)
	}
	if f, ok := o.(*api.FelixConfiguration); ok {
		return config.Validate(f)
	}
	return nil
}

// defaultProfile is the profile that upstream has in every cluster and in no datastore.
const defaultProfile = "projectcalico-default-allow"

// notForUsers says why users cannot do that with o; empty if they can.
func notForUsers(v verb, o api.Object, opts Options) string {
	kind, name := api.KindOf(o), o.GetName()
	switch {
	case kind.Group != "" && opts.Reserved: // without a Kubernetes API they are kept here
		return ""
	case kind.Internal, kind == api.KindClusterInformation:
		return fmt.Sprintf("Calico itself writes objects of this kind: they can be listed, but %s is not supported", v)
	case kind == api.KindTier && v == verbDelete && api.IsBuiltInTier(name):
		return "every cluster has this tier: it cannot be deleted"
	case kind == api.KindProfile && name == defaultProfile:
		return "every cluster has this profile: it cannot be written"
	case opts.Reserved:
		return ""
	case kind == api.KindProfile && strings.HasPrefix(name, api.NamespaceProfile):
		return "profiles " + api.NamespaceProfile + "* stand for Kubernetes Namespaces: change the Namespace instead"
	case kind == api.KindProfile && strings.HasPrefix(name, api.ServiceAccountProfile):
		return "profiles " + api.ServiceAccountProfile + "* stand for Kubernetes ServiceAccounts: change the ServiceAccount instead"
	case kind == api.KindNetworkPolicy && strings.HasPrefix(name, api.KubePolicyPrefix):
		return "policies " + api.KubePolicyPrefix + "* stand for Kubernetes NetworkPolicies: change the Kubernetes NetworkPolicy instead"
	}
	return ""
}

// unchangeable says which field of a stored object o cannot change.
func unchangeable(stored, o api.Object) error {
	was, ok := stored.(*api.IPPool)
	if !ok {
		return nil
	}
	is, k := o.(*api.IPPool), store.KeyOf(o)
	was.Default() // an old one may not say its block size
	switch {
	case was.Spec.CIDR != is.Spec.CIDR:
		return fmt.Errorf("%v: spec.cidr: cannot be changed from %s to %s: make another pool, and disable this one", k, was.Spec.CIDR, is.Spec.CIDR)
	case was.Spec.BlockSize != is.Spec.BlockSize:
		return fmt.Errorf("%v: spec.blockSize: cannot be changed from %d to %d: make another pool, and disable this one", k, was.Spec.BlockSize, is.Spec.BlockSize)
	}
	return nil
}

// tierOf is the tier of a policy; empty if o is none.
func tierOf(o api.Object) string {
	var tier string
	switch p := o.(type) {
	case *api.NetworkPolicy:
		tier = p.Spec.Tier
	case *api.GlobalNetworkPolicy:
		tier = p.Spec.Tier
	default:
		return ""
	}
	if tier == "" {
		return api.DefaultTier // as it was stored by others
	}
	return tier
}
