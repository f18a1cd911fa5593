package etcd

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFromEnviron(t *testing.T) {
	defaults := Config{Endpoints: []string{DefaultEndpoint}, DialTimeout: 10 * time.Second, RequestTimeout: 10 * time.Second}
	full := Config{
		Endpoints: []string{"https://a:2379", "https://[fd00::1]:2379"},
		CAFile:    "/ca", CertFile: "/cert", KeyFile: "/key", Username: "u", Password: "p=q",
		DialTimeout: 10 * time.Second, RequestTimeout: 10 * time.Second,
	}
	for name, c := range map[string]struct {
		environ []string
		want    Config
		err     string
	}{
		"nothing": {nil, defaults, ""},
		"empty":   {[]string{"ETCD_ENDPOINTS=", "ETCD_CA_CERT_FILE=", "HOME=/root"}, defaults, ""},
		"all": {[]string{
			"ETCD_ENDPOINTS=https://a:2379, https://[fd00::1]:2379,", "ETCD_CA_CERT_FILE=/ca", "ETCD_CERT_FILE=/cert",
			"ETCD_KEY_FILE=/key", "ETCD_USERNAME=u", "ETCD_PASSWORD=p=q",
		}, full, ""},
		"scheme":  {[]string{"ETCD_ENDPOINTS=a:2379"}, Config{}, `endpoint "a:2379"`},
		"bare":    {[]string{"ETCD_ENDPOINTS=127.0.0.1:2379"}, Config{}, `endpoint "127.0.0.1:2379"`},
		"port":    {[]string{"ETCD_ENDPOINTS=http://a"}, Config{}, "port is missing"},
		"path":    {[]string{"ETCD_ENDPOINTS=http://a:1/b"}, Config{}, "has a path"},
		"socket":  {[]string{"ETCD_ENDPOINTS=unix://run/etcd"}, Config{}, "must be absolute"},
		"mixed":   {[]string{"ETCD_ENDPOINTS=http://a:1,https://b:1"}, Config{}, "some of the endpoints"},
		"unused":  {[]string{"ETCD_ENDPOINTS=http://a:1", "ETCD_CA_CERT_FILE=/ca"}, Config{}, "write https://"},
		"keyless": {[]string{"ETCD_ENDPOINTS=https://a:1", "ETCD_CERT_FILE=/c"}, Config{}, "ETCD_KEY_FILE"},
		"no word": {[]string{"ETCD_USERNAME=u"}, Config{}, "ETCD_PASSWORD"},
	} {
		got, err := FromEnviron(c.environ)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: error %v, want one line with %q", name, err, c.err)
			}
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v; -want +got\n%s", name, err, diff)
		}
	}
}

func TestCommonPrefix(t *testing.T) {
	for want, in := range map[string][]string{
		"/calico/ipam/v2/config": {"/calico/ipam/v2/config"},
		"/calico/ipam/v2/":       {hosts, virtuals},
		"/calico/":               {hosts, resources + "ippools/", ipamConfig},
		resources:                {resources + "ippools/", resources + "ippoolz/"},
		resources + "tiers/":     {resources + "tiers/", resources + "tiers/"},
	} {
		if got := commonPrefix(in); got != want {
			t.Errorf("commonPrefix(%q) = %q, want %q", in, got, want)
		}
	}
}
