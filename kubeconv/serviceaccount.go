package kubeconv

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/calicogo/calico/api"
)

// ServiceAccount returns the Profile of a service account: ksa.NAMESPACE.NAME. Its pods
// inherit the account's labels with the prefix pcsa.; it has no rules.
func ServiceAccount(sa *corev1.ServiceAccount) *api.Profile {
	p := &api.Profile{Meta: api.Named(api.KindProfile, "", api.ServiceAccountProfile+sa.Namespace+"."+sa.Name)}
	p.Spec.LabelsToApply = make(map[string]string, len(sa.Labels)+1)
	for k, v := range sa.Labels {
		p.Spec.LabelsToApply[api.ServiceAccountPrefix+k] = v
	}
	p.Spec.LabelsToApply[api.ServiceAccountPrefix+labelName] = sa.Name
	return p
}
