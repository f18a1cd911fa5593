package api

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Condition is a Kubernetes condition.
type Condition = metav1.Condition

// NamespaceProfile is the prefix of the Profile that carries a namespace's labels and
// default rules: "kns.default".
const NamespaceProfile = "kns."

// ServiceAccountProfile is the prefix of a service account's Profile: "ksa.ns.name".
const ServiceAccountProfile = "ksa."

// KubePolicyPrefix is the prefix of a NetworkPolicy that stands for a Kubernetes one.
const KubePolicyPrefix = "knp.default."

// Labels that Calico itself puts on endpoints.
const (
	LabelNamespace       = "projectcalico.org/namespace"
	LabelOrchestrator    = "projectcalico.org/orchestrator"
	LabelServiceAccount  = "projectcalico.org/serviceaccount"
	LabelTier            = "projectcalico.org/tier"     // on policies and tiers
	LabelServiceName     = "kubernetes.io/service-name" // on EndpointSlices
	NamespaceLabelPrefix = "pcns."
	ServiceAccountPrefix = "pcsa."
)
