package kubeconv

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/calicogo/calico/api"
)

// Namespace returns the Profile of a namespace: kns.NAME. Its pods inherit the
// namespace's labels with the prefix pcns., and may talk to everyone where no policy
// says otherwise.
func Namespace(ns *corev1.Namespace) *api.Profile {
	p := &api.Profile{Meta: api.Named(api.KindProfile, "", api.NamespaceProfile+ns.Name)}
	p.Spec.LabelsToApply = make(map[string]string, len(ns.Labels)+2)
	for k, v := range ns.Labels {
		p.Spec.LabelsToApply[api.NamespaceLabelPrefix+k] = v
	}
	p.Spec.LabelsToApply[api.NamespaceLabelPrefix+labelName] = ns.Name
	p.Spec.LabelsToApply[api.NamespaceLabelPrefix+corev1.LabelMetadataName] = ns.Name // as an API server does
	p.Spec.Ingress = []api.Rule{{Action: api.Allow}}
	p.Spec.Egress = []api.Rule{{Action: api.Allow}}
	return p
}

// labelName is the label by which policies select one namespace, or service account, by
// its name.
const labelName = "projectcalico.org/name"
