package felix

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/dataplane"
	"github.com/calicogo/calico/store"
)

func felixConfiguration(name string, spec map[string]any) *api.FelixConfiguration {
	o := &api.FelixConfiguration{Meta: api.Named(api.KindFelixConfiguration, "", name), Spec: api.FelixConfigurationSpec{}}
	for k, v := range spec {
		o.Spec[k], _ = json.Marshal(v)
	}
	return o
}

// A value that is not allowed is a problem, leaves the one before it in force, and holds nothing up.
func TestSettingsThatAreNonsense(t *testing.T) {
	good := map[string]any{"nftablesMarkMask": 0xff00, "iptablesMarkMask": 0xff0000, "logPrefix": "mine", "nftablesMode": "Disabled", "iptablesBackend": "legacy", "interfacePrefix": "cali,tap"}
	wanted := func(s dataplane.Settings) bool {
		return s.Backend == dataplane.Iptables && s.MarkMask == 0xff0000 && s.LogPrefix == "mine" && s.Iptables.Variant == "legacy" && len(s.InterfacePrefixes) == 2
	}
	for _, name := range []string{"default", "node.n1"} {
		for field, c := range map[string]struct {
			value any
			says  string
		}{
			"iptablesMarkMask": {0x3, `"3": must be a 32-bit mask with at least 4 bits set, such as 0xffff0000; 16711680, as it was, stands`},
			"logPrefix":        {strings.Repeat("x", 200), `must be a text of at most 125 bytes, in one line; "mine", as it was, stands`},
			"nftablesMode":     {"Sometimes", `"Sometimes": must be one of Auto, Disabled, Enabled; "Disabled", as it was, stands`},
			"iptablesBackend":  {"ebtables", `"ebtables": must be one of auto, legacy, nft; "legacy", as it was, stands`},
			"interfacePrefix":  {"abcdefghijklmnop", `1 to 14 letters, digits, '_' or '-' each, separated by commas; "cali,tap", as it was, stands`},
			"maxIpsetSize":     {-5, `must be a whole number from 0 to 2147483648; it counts as not set`},
		} {
			t.Run(name+" "+field, func(t *testing.T) {
				run(t, func(t *testing.T, a *Agent, rules, _ *kernel) {
					rev := store.Revision(4)
					put := func(o api.Object) Status {
						rev++
						k := store.Key{Kind: api.KindFelixConfiguration.Name, Name: name}
						a.Update(store.Update{Revision: rev, InSync: true, Events: []store.Event{{Key: k, Object: o}}})
						synctest.Wait()
						s, _ := a.Status()
						if s.Revision != rev {
							t.Errorf("revision %d is in the kernel, want %d", s.Revision, rev)
						}
						return s
					}
					if s := put(felixConfiguration(name, good)); len(s.Problems) != 0 || !wanted(rules.settings()) {
						t.Fatalf("%+v, %+v", s.Problems, rules.settings())
					}
					bad := map[string]any{}
					for k, v := range good {
						bad[k] = v
					}
					bad[field] = c.value
					for range 2 { // the second time it is no more allowed than the first
						s := put(felixConfiguration(name, bad))
						if len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Message, "spec."+field+": ") || !strings.HasSuffix(s.Problems[0].Message, c.says) || strings.Contains(s.Problems[0].Message, "\n") {
							t.Errorf("problems %+v", s.Problems)
						}
						if !wanted(rules.settings()) {
							t.Errorf("settings %+v", rules.settings())
						}
					}
					if s := put(felixConfiguration(name, map[string]any{"logPrefix": "other"})); len(s.Problems) != 0 || rules.settings().LogPrefix != "other" || rules.settings().Backend != dataplane.NFTables {
						t.Errorf("%+v, %+v", s.Problems, rules.settings())
					}
					put(nil)
					if s := put(felixConfiguration(name, bad)); len(s.Problems) != 1 || !strings.HasSuffix(s.Problems[0].Message, "; it counts as not set") {
						t.Errorf("what was before it was deleted is not forgotten: %+v", s.Problems)
					}
				})
			})
		}
	}
}

// What another node's settings are is nothing to this one.
func TestSettingsOfAnotherNode(t *testing.T) {
	run(t, func(t *testing.T, a *Agent, _, _ *kernel) {
		o := felixConfiguration("node.n2", map[string]any{"logPrefix": "a\nb"})
		a.Update(store.Update{Revision: 5, InSync: true, Events: []store.Event{{Key: store.KeyOf(o), Object: o}}})
		synctest.Wait()
		if s, _ := a.Status(); len(s.Problems) != 0 {
			t.Errorf("%+v", s.Problems)
		}
	})
}
