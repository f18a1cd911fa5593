package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/kubeconv"
	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
)

// openStore opens the lab's datastore by its Unix socket.
func (d Dir) openStore(ctx context.Context) (*etcd.Store, error) {
	return etcd.Open(ctx, etcd.Config{Endpoints: []string{"unix://" + d.etcdSocket()}})
}

// seed writes what an installer writes before the first node starts.
func (s *Supervisor) seed() error {
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	st, err := s.dir.openStore(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	var ops []store.Op
	for _, o := range seedObjects(s.options, s.dir.Name()) {
		o.Default()
		if err := o.Validate(); err != nil {
			return fmt.Errorf("seed %v: %w", store.KeyOf(o), err)
		}
		ops = append(ops, store.Create(o))
	}
	if _, err := st.Commit(ctx, ops); err != nil {
		return fmt.Errorf("seed the datastore: %w", err)
	}
	return nil
}

func seedObjects(o Options, name string) []api.Object {
	ready := true
	info := &api.ClusterInformation{Meta: api.Named(api.KindClusterInformation, "", "default")}
	info.Spec = api.ClusterInformationSpec{ClusterGUID: randomID()[:32], ClusterType: "lab," + name, DatastoreReady: &ready}
	// There is no BGP in a lab yet, so the agents program the routes of every mode.
	felix := &api.FelixConfiguration{Meta: api.Named(api.KindFelixConfiguration, "", "default")}
	felix.Spec = api.FelixConfigurationSpec{"programClusterRoutes": json.RawMessage(`"Enabled"`)}
	for parameter, value := range backendParameters[o.Backend] {
		felix.Spec[parameter] = json.RawMessage(strconv.Quote(value))
	}
	objects := []api.Object{info, felix, namespaceProfile("default"), pool("default-ipv4-ippool", o.Encap, o.Pool, o.BlockSize)}
	if o.Pool6.IsValid() {
		objects = append(objects, pool("default-ipv6-ippool", o.Encap, o.Pool6, blockSize6))
	}
	return objects
}

// backendParameters are the parts of a FelixConfiguration that choose a backend.
var backendParameters = map[string]map[string]string{
	BackendNFT:            {"nftablesMode": "Enabled"},
	BackendIptables:       {"nftablesMode": "Disabled", "iptablesBackend": "NFT"},
	BackendIptablesLegacy: {"nftablesMode": "Disabled", "iptablesBackend": "Legacy"},
}

func pool(name, encap string, cidr netip.Prefix, blockSize int) *api.IPPool {
	p := &api.IPPool{Meta: api.Named(api.KindIPPool, "", name)}
	v4 := cidr.Addr().Is4()
	p.Spec = api.IPPoolSpec{CIDR: cidr.String(), BlockSize: blockSize, VXLANMode: api.EncapNever, IPIPMode: api.EncapNever, NATOutgoing: v4}
	switch {
	case encap == EncapVXLAN:
		p.Spec.VXLANMode = api.EncapAlways
	case encap == EncapIPIP && v4:
		p.Spec.IPIPMode = api.EncapAlways
	}
	return p
}

func namespaceProfile(name string) *api.Profile {
	return kubeconv.Namespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   name,
		Labels: map[string]string{"kubernetes.io/metadata.name": name},
	}})
}
