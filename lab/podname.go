package lab

import (
	"fmt"
	"regexp"
	"strings"
)

// PodName names a pod.
type PodName struct{ Namespace, Name string }

func (p PodName) String() string { return p.Namespace + "/" + p.Name }

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`) // RFC 1123

// ParsePodName parses [NAMESPACE/]POD.
func ParsePodName(s, defaultNamespace string) (PodName, error) {
	ns, name, ok := strings.Cut(s, "/")
	if !ok {
		ns, name = defaultNamespace, s
	}
	if !dnsLabel.MatchString(ns) {
		return PodName{}, fmt.Errorf("namespace %q: want at most 63 of a-z, 0-9 and -, and a letter or digit at both ends", ns)
	}
	for part := range strings.SplitSeq(name, ".") {
		if !dnsLabel.MatchString(part) {
			return PodName{}, fmt.Errorf("pod %q: want a-z, 0-9, - and ., and a letter or digit at both ends", s)
		}
	}
	return PodName{ns, name}, nil
}

// ParseLabels parses key=value pairs.
func ParseLabels(pairs []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("label %q: want key=value", p)
		}
		labels[k] = v
	}
	return labels, nil
}
