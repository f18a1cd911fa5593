package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Samples returns an object of every kind, with what a store must give back.
func Samples() []api.Object {
	var all []api.Object
	for _, k := range api.Kinds() {
		all = append(all, sample(k))
	}
	return all
}

func sample(k *api.Kind) api.Object {
	switch k.Name {
	case "IPAMBlock":
		return Block()
	case "BlockAffinity":
		a := &api.BlockAffinity{Meta: api.Named(k, "", "node1-10-10-72-0-26")}
		a.Spec = api.BlockAffinitySpec{State: api.AffinityConfirmed, Node: "node1", Type: "host", CIDR: "10.10.72.0/26"}
		return a
	case "IPAMHandle":
		h := &api.IPAMHandle{Meta: api.Named(k, "", "k8s-pod-network.0a1b")}
		h.Spec = api.IPAMHandleSpec{HandleID: h.Name, Block: map[string]int{"10.10.72.0/26": 1}}
		return h
	case "IPAMConfiguration":
		yes, rest := true, 60
		c := &api.IPAMConfiguration{Meta: api.Named(k, "", "default")}
		c.Spec = api.IPAMConfigurationSpec{StrictAffinity: true, AutoAllocateBlocks: &yes, MaxBlocksPerHost: 4, IPCooldownSeconds: &rest}
		return c
	}
	o := k.New()
	o.SetName("a.sample-1")
	if k.Namespaced {
		o.SetNamespace("ns")
	}
	o.SetLabels(map[string]string{"example.org/l": "1"})
	o.SetAnnotations(map[string]string{"example.org/a": "ä<\n"})
	return o
}

// Block returns an IPAMBlock of four addresses, two of them given out and one resting.
func Block() *api.IPAMBlock {
	zero, one := 0, 1
	affinity, handle := "host:node1", "k8s-pod-network.0a1b"
	when := metav1.NewTime(time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC))
	b := &api.IPAMBlock{Meta: api.Named(api.KindIPAMBlock, "", "10-10-72-0-30")}
	b.Spec = api.IPAMBlockSpec{
		CIDR:              "10.10.72.0/30",
		Affinity:          &affinity,
		AffinityClaimTime: &when,
		Allocations:       []*int{&zero, nil, &zero, &one},
		Unallocated:       []int{1},
		Attributes: []api.AllocAttributes{
			{HandleID: &handle, Secondary: map[string]string{"node": "node1", "namespace": "default", "pod": "busybox01"}},
			{ReleasedAt: &when},
		},
		SequenceNumber:              7,
		SequenceNumberForAllocation: map[string]uint64{"0": 3, "2": 6},
	}
	return b
}

// testEveryKind writes, reads, lists, watches, changes and deletes one of each kind.
func testEveryKind(t *testing.T, s store.Store) {
	view := Follow(t, s.Watch())
	for _, o := range Samples() {
		k := store.KeyOf(o)
		rev := MustCommit(t, s, store.Create(o))
		want := api.Clone(o)
		got, err := s.Get(Context(t), k)
		if err != nil {
			t.Errorf("%v: %v", k, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v: Get; -want +got\n%s", k, diff)
		}
		all, _, err := s.List(Context(t), k.Kind, k.Namespace)
		if err != nil || len(all) != 1 || !cmp.Equal(want, all[0]) {
			t.Errorf("%v: List gives %v, %v", k, all, err)
		}
		if diff := cmp.Diff(want, view.At(rev)[k]); diff != "" {
			t.Errorf("%v: Watch; -want +got\n%s", k, diff)
		}
		rev = MustCommit(t, s, store.Replace(got))
		if rev <= api.Revision(want) || api.Revision(got) != rev {
			t.Errorf("%v: replaced at %d, was %d, object says %d", k, rev, api.Revision(want), api.Revision(got))
		}
		rev = MustCommit(t, s, store.Delete(k, rev))
		if o, there := view.At(rev)[k]; there {
			t.Errorf("%v: deleted, Watch has %v", k, o)
		}
	}
}
