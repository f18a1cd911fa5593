package etcd

import (
	"encoding/json"
	"strings"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// codec says how the objects of one kind lie in etcd.
type codec struct {
	kind     *api.Kind
	prefixes []string // every path of the kind has one of these
	metadata bool     // the body keeps labels, annotations, uid and age

	// paths returns where the object of that name may be, at least one.
	paths func(store.Key) ([]string, error)
	// path returns where o goes.
	path func(o api.Object) (string, error)
	// key is what the object at path is called.
	key func(path string) (store.Key, error)
	// decode fills in a new object from the body at path.
	decode func(o api.Object, path string, body []byte) error
	encode func(o api.Object) ([]byte, error)
}

// codecs of all kinds, by name of the kind.
var codecs = makeCodecs()

func makeCodecs() map[string]*codec {
	all := map[string]*codec{}
	for _, kind := range api.Kinds() {
		all[kind.Name] = resourceCodec(kind)
	}
	for _, c := range []*codec{blockCodec, affinityCodec, handleCodec, configCodec} {
		all[c.kind.Name] = c
	}
	return all
}

// codecOf returns the codec of a kind that store.Key.Check has passed.
func codecOf(k store.Key) *codec { return codecs[k.Kind] }

// at says whether path belongs to the kind.
func (c *codec) at(path string) bool {
	for _, p := range c.prefixes {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}

// read decodes the value at path, which k names, as of revision rev.
func (c *codec) read(k store.Key, path string, body []byte, rev store.Revision) (api.Object, error) {
	o := c.kind.New()
	if err := c.decode(o, path, body); err != nil {
		return nil, invalid(k, "the value at %s: %v", path, err)
	}
	if got := (store.Key{Kind: o.GetObjectKind().GroupVersionKind().Kind, Namespace: o.GetNamespace(), Name: o.GetName()}); c.metadata && got != k {
		return nil, invalid(k, "the value at %s: it says that it is %v", path, got)
	}
	meta := api.Named(c.kind, "", "")
	o.GetObjectKind().SetGroupVersionKind(meta.GroupVersionKind())
	api.SetRevision(o, rev)
	return o, nil
}

// resourceCodec is for the kinds whose body is the v3 form.
func resourceCodec(kind *api.Kind) *codec {
	c := &codec{kind: kind, prefixes: []string{resourcePrefix(kind)}, metadata: true}
	c.paths = func(k store.Key) ([]string, error) {
		p, err := resourcePath(kind, k)
		return []string{p}, err
	}
	c.path = func(o api.Object) (string, error) { return resourcePath(kind, store.KeyOf(o)) }
	c.key = func(path string) (store.Key, error) { return resourceKey(kind, path) }
	c.encode = encodeResource
	c.decode = func(o api.Object, _ string, body []byte) error { return json.Unmarshal(body, o) }
	return c
}

// encodeResource writes the v3 form without a resourceVersion, which is etcd's to say.
func encodeResource(o api.Object) ([]byte, error) {
	rev := o.GetResourceVersion()
	o.SetResourceVersion("")
	defer o.SetResourceVersion(rev)
	return json.Marshal(o)
}
