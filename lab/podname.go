package lab

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/calicogo/calico/api"
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
	if len(name) > 253 { // RFC 1123, as Kubernetes reads it
		return PodName{}, fmt.Errorf("pod %q: is %d bytes long, and can have 253", s, len(name))
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
		if bad := append(validation.IsQualifiedName(k), validation.IsValidLabelValue(v)...); len(bad) > 0 {
			return nil, fmt.Errorf("label %q: %s", p, bad[0])
		}
		labels[k] = v
	}
	return labels, nil
}

// ParsePorts parses ports of the form NAME=PROTOCOL/PORT.
func ParsePorts(texts []string) ([]api.EndpointPort, error) {
	var ports []api.EndpointPort
	for _, text := range texts {
		name, where, _ := strings.Cut(text, "=")
		protocol, number, _ := strings.Cut(where, "/")
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil || port == 0 || name == "" || withPorts[protocol] == 0 {
			return nil, fmt.Errorf("port %q: want NAME=PROTOCOL/PORT, such as web=tcp/80, udp or sctp", text)
		}
		ports = append(ports, api.EndpointPort{Name: name, Protocol: api.Protocol(protocol), Port: uint16(port)})
	}
	return ports, nil
}
