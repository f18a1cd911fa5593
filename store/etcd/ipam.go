package etcd

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// The bodies of IPAM keys are not the v3 form: upstream's libcalico-go keeps them in
// its v1 model. They have no metadata; a name is what the path says.

// unknownFields is the annotation in which an IPAM object carries the fields of its
// body that this version does not know, a JSON object, from the read to the write.
const unknownFields = "etcd.projectcalico.org/unknown-fields"

type blockBody struct {
	CIDR                        string            `json:"cidr"`
	Affinity                    *string           `json:"affinity"`
	AffinityClaimTime           *metav1.Time      `json:"affinity_claim_time,omitempty"`
	StrictAffinity              bool              `json:"strictAffinity,omitempty"`
	Allocations                 []*int            `json:"allocations"`
	Unallocated                 []int             `json:"unallocated"`
	Attributes                  []attributeBody   `json:"attributes"`
	SequenceNumber              uint64            `json:"sequenceNumber"`
	SequenceNumberForAllocation map[string]uint64 `json:"sequenceNumberForAllocation"`
	Deleted                     bool              `json:"deleted"`
	HostAffinity                *string           `json:"hostAffinity,omitempty"` // in old bodies, for Affinity
}

type attributeBody struct {
	HandleID            *string           `json:"handle_id"`
	Secondary           map[string]string `json:"secondary"`
	AlternateOwnerAttrs map[string]string `json:"alternateOwnerAttrs,omitempty"`
	ReleasedAt          *metav1.Time      `json:"releasedAt,omitempty"`
}

type affinityBody struct {
	State   api.AffinityState `json:"state"`
	Deleted bool              `json:"deleted"`
}

type handleBody struct {
	Block   map[string]int `json:"block"` // addresses by CIDR
	Deleted bool           `json:"deleted"`
}

type configBody struct {
	StrictAffinity               bool   `json:"strict_affinity"`
	AutoAllocateBlocks           *bool  `json:"auto_allocate_blocks"`
	MaxBlocksPerHost             int    `json:"maxBlocksPerHost,omitempty"`
	KubeVirtVMAddressPersistence string `json:"kubeVirtVMAddressPersistence,omitempty"`
	IPCooldownSeconds            *int   `json:"ipCooldownSeconds,omitempty"`
}

// unmarshal reads body into known and keeps what known has no field for in o.
func unmarshal(body []byte, known any, fields []string, o api.Object) error {
	if err := json.Unmarshal(body, known); err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil {
		return err
	}
	if all == nil {
		return fmt.Errorf("it is %.20q, want a JSON object", body)
	}
	for _, f := range fields {
		delete(all, f)
	}
	if len(all) == 0 {
		return nil
	}
	rest, err := json.Marshal(all)
	if err == nil {
		o.SetAnnotations(map[string]string{unknownFields: string(rest)})
	}
	return err
}

// marshal writes known and what unmarshal kept.
func marshal(known any, o api.Object) ([]byte, error) {
	body, err := json.Marshal(known)
	rest := o.GetAnnotations()[unknownFields]
	if err != nil || rest == "" {
		return body, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(rest), &all); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", unknownFields, err)
	}
	if err := json.Unmarshal(body, &all); err != nil { // adds to all
		return nil, err
	}
	return json.Marshal(all)
}

var blockCodec = &codec{
	kind:     api.KindIPAMBlock,
	prefixes: []string{blocks},
	paths: func(k store.Key) ([]string, error) {
		p, ok := parseCIDRName(k.Name)
		if !ok {
			return nil, invalid(k, "a block is named for its CIDR, as 10-10-72-0-26")
		}
		return []string{blocks + cidrPath(p)}, nil
	},
	path: func(o api.Object) (string, error) {
		k, spec := store.KeyOf(o), o.(*api.IPAMBlock).Spec
		p, err := parseCIDR(k, spec.CIDR)
		if err == nil && cidrName(p) != k.Name {
			err = invalid(k, "a block is named for its CIDR: want %s", cidrName(p))
		}
		if bad := checkOrdinals(spec); err == nil && bad != nil {
			err = invalid(k, "%v", bad)
		}
		return blocks + cidrPath(p), err
	},
	key: func(path string) (store.Key, error) {
		p, ok := parseCIDRPath(strings.TrimPrefix(path, blocks))
		if !ok {
			return store.Key{}, fmt.Errorf("%w: the key %s names no block", store.ErrInvalid, path)
		}
		return store.Key{Kind: api.KindIPAMBlock.Name, Name: cidrName(p)}, nil
	},
	encode: func(o api.Object) ([]byte, error) { return encodeBlock(o.(*api.IPAMBlock)) },
	decode: func(o api.Object, path string, body []byte) error {
		return decodeBlock(o.(*api.IPAMBlock), path, body)
	},
}

func encodeBlock(o *api.IPAMBlock) ([]byte, error) {
	s := o.Spec
	b := blockBody{
		CIDR: s.CIDR, Affinity: s.Affinity, AffinityClaimTime: s.AffinityClaimTime, StrictAffinity: s.StrictAffinity,
		Allocations: s.Allocations, Unallocated: s.Unallocated,
		Attributes:     make([]attributeBody, len(s.Attributes)),
		SequenceNumber: s.SequenceNumber, SequenceNumberForAllocation: s.SequenceNumberForAllocation,
		Deleted: s.Deleted,
	}
	for i, a := range s.Attributes {
		b.Attributes[i] = attributeBody(a)
	}
	return marshal(b, o)
}

var blockFields = []string{
	"cidr", "affinity", "affinity_claim_time", "strictAffinity", "allocations", "unallocated", "attributes",
	"sequenceNumber", "sequenceNumberForAllocation", "deleted", "hostAffinity",
}

func decodeBlock(o *api.IPAMBlock, path string, body []byte) error {
	var b blockBody
	if err := unmarshal(body, &b, blockFields, o); err != nil {
		return err
	}
	p, _ := parseCIDRPath(strings.TrimPrefix(path, blocks))
	if got, err := netip.ParsePrefix(b.CIDR); err != nil || got != p {
		return fmt.Errorf("it says that its cidr is %q, want %v", b.CIDR, p)
	}
	if b.Affinity == nil && b.HostAffinity != nil {
		a := "host:" + *b.HostAffinity
		b.Affinity = &a
	}
	o.Name = cidrName(p)
	o.Spec = api.IPAMBlockSpec{
		CIDR: b.CIDR, Affinity: b.Affinity, AffinityClaimTime: utc(b.AffinityClaimTime), StrictAffinity: b.StrictAffinity,
		Allocations: b.Allocations, Unallocated: b.Unallocated,
		Attributes:     make([]api.AllocAttributes, len(b.Attributes)),
		SequenceNumber: b.SequenceNumber, SequenceNumberForAllocation: b.SequenceNumberForAllocation,
		Deleted: b.Deleted,
	}
	for i, a := range b.Attributes {
		a.ReleasedAt = utc(a.ReleasedAt)
		o.Spec.Attributes[i] = api.AllocAttributes(a)
	}
	return checkOrdinals(o.Spec)
}

// utc makes one instant one value, whatever the local time zone.
func utc(t *metav1.Time) *metav1.Time {
	if t == nil {
		return nil
	}
	u := metav1.NewTime(t.UTC())
	return &u
}

// checkOrdinals finds what would have a reader of the block look beyond its ends.
func checkOrdinals(s api.IPAMBlockSpec) error {
	for i, a := range s.Allocations {
		if a != nil && (*a < 0 || *a >= len(s.Attributes)) {
			return fmt.Errorf("allocations[%d] is %d, but there are %d attributes", i, *a, len(s.Attributes))
		}
	}
	for i, n := range s.Unallocated {
		if n < 0 || n >= len(s.Allocations) {
			return fmt.Errorf("unallocated[%d] is %d, but the block has %d addresses", i, n, len(s.Allocations))
		}
	}
	return nil
}

var affinityCodec = &codec{
	kind:     api.KindBlockAffinity,
	prefixes: []string{hosts, virtuals},
	paths: func(k store.Key) ([]string, error) {
		paths := affinityPaths(k.Name)
		if len(paths) == 0 || strings.Contains(k.Name, "/") {
			return nil, invalid(k, "an affinity is named for its node and CIDR, as node1-10-10-72-0-26")
		}
		return paths, nil
	},
	path: func(o api.Object) (string, error) { return pathOfAffinity(o.(*api.BlockAffinity)) },
	key: func(path string) (store.Key, error) {
		_, node, p, ok := parseAffinityPath(path)
		if !ok {
			return store.Key{}, fmt.Errorf("%w: the key %s names no block affinity", store.ErrInvalid, path)
		}
		return store.Key{Kind: api.KindBlockAffinity.Name, Name: affinityName(node, p)}, nil
	},
	encode: func(o api.Object) ([]byte, error) {
		s := o.(*api.BlockAffinity).Spec
		return marshal(affinityBody{State: s.State, Deleted: s.Deleted}, o)
	},
	decode: func(o api.Object, path string, body []byte) error {
		var b affinityBody
		if err := unmarshal(body, &b, []string{"state", "deleted"}, o); err != nil {
			return err
		}
		typ, node, p, _ := parseAffinityPath(path)
		o.SetName(affinityName(node, p))
		o.(*api.BlockAffinity).Spec = api.BlockAffinitySpec{
			State: b.State, Deleted: b.Deleted, Node: node, Type: typ, CIDR: p.String(),
		}
		return nil
	},
}

func pathOfAffinity(o *api.BlockAffinity) (string, error) {
	k := store.KeyOf(o)
	p, err := parseCIDR(k, o.Spec.CIDR)
	switch {
	case err != nil:
		return "", err
	case o.Spec.Node == "" || strings.Contains(o.Spec.Node, "/"):
		return "", invalid(k, "spec.node %q: want the name of a node", o.Spec.Node)
	case o.Spec.Type != "" && o.Spec.Type != affinityHost && o.Spec.Type != affinityVirtual:
		return "", invalid(k, "spec.type %q: want host or virtual", o.Spec.Type)
	case affinityName(o.Spec.Node, p) != k.Name:
		return "", invalid(k, "an affinity is named for its node and CIDR: want %s", affinityName(o.Spec.Node, p))
	}
	return affinityPath(o.Spec.Type, o.Spec.Node, p), nil
}

var handleCodec = &codec{
	kind:     api.KindIPAMHandle,
	prefixes: []string{handles},
	paths:    func(k store.Key) ([]string, error) { return []string{handles + escaper.Replace(k.Name)}, nil },
	path: func(o api.Object) (string, error) {
		k, id := store.KeyOf(o), o.(*api.IPAMHandle).Spec.HandleID
		if id != k.Name {
			return "", invalid(k, "spec.handleID is %q, want the name", id)
		}
		return handles + escaper.Replace(id), nil
	},
	key: func(path string) (store.Key, error) {
		id := unescaper.Replace(strings.TrimPrefix(path, handles))
		k := store.Key{Kind: api.KindIPAMHandle.Name, Name: id}
		return k, k.Check()
	},
	encode: func(o api.Object) ([]byte, error) {
		s := o.(*api.IPAMHandle).Spec
		return marshal(handleBody{Block: s.Block, Deleted: s.Deleted}, o)
	},
	decode: func(o api.Object, path string, body []byte) error {
		var b handleBody
		if err := unmarshal(body, &b, []string{"block", "deleted"}, o); err != nil {
			return err
		}
		id := unescaper.Replace(strings.TrimPrefix(path, handles))
		o.SetName(id)
		o.(*api.IPAMHandle).Spec = api.IPAMHandleSpec{HandleID: id, Block: b.Block, Deleted: b.Deleted}
		return nil
	},
}

var configCodec = &codec{
	kind:     api.KindIPAMConfiguration,
	prefixes: []string{ipamConfig},
	paths:    pathOfConfig,
	path: func(o api.Object) (string, error) {
		paths, err := pathOfConfig(store.KeyOf(o))
		if err != nil {
			return "", err
		}
		return paths[0], nil
	},
	key: func(path string) (store.Key, error) {
		if path != ipamConfig {
			return store.Key{}, fmt.Errorf("%w: the key %s names nothing", store.ErrInvalid, path)
		}
		return store.Key{Kind: api.KindIPAMConfiguration.Name, Name: configName}, nil
	},
	encode: func(o api.Object) ([]byte, error) {
		b := configBody(o.(*api.IPAMConfiguration).Spec)
		if b.AutoAllocateBlocks == nil { // others would read its absence as false
			yes := true
			b.AutoAllocateBlocks = &yes
		}
		return marshal(b, o)
	},
	decode: func(o api.Object, path string, body []byte) error {
		var b configBody
		known := []string{"strict_affinity", "auto_allocate_blocks", "maxBlocksPerHost", "kubeVirtVMAddressPersistence", "ipCooldownSeconds"}
		if err := unmarshal(body, &b, known, o); err != nil {
			return err
		}
		o.SetName(configName)
		o.(*api.IPAMConfiguration).Spec = api.IPAMConfigurationSpec(b)
		return nil
	},
}

func pathOfConfig(k store.Key) ([]string, error) {
	if k.Name != configName {
		return nil, invalid(k, "there is only one, named %s", configName)
	}
	return []string{ipamConfig}, nil
}
