package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/ctl"
	"github.com/calicogo/calico/kubeconv"
	"github.com/calicogo/calico/store"
)

// Manifest is a file of objects: Calico's kinds, and Kubernetes' Namespace and
// NetworkPolicy as users have them.
type Manifest struct {
	File      string // for messages
	Text      []byte
	Namespace string // of objects that do not say theirs
	// Patience is how long to wait until the nodes have the objects in their kernels.
	Patience time.Duration
}

// InForce is the usual [Manifest.Patience].
const InForce = 30 * time.Second

// ReadManifest reads the file, or stdin if it is "-".
func ReadManifest(ctx context.Context, file string, stdin io.Reader) (Manifest, error) {
	if file == "-" {
		text, err := ctl.ReadAll(ctx, stdin)
		return Manifest{File: "standard input", Text: text}, err
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return Manifest{}, fmt.Errorf("no file %s", file)
	}
	return Manifest{File: file, Text: text}, err
}

func (m Manifest) objects() ([]api.Object, error) {
	objects, err := kubeconv.DecodeAll(m.File, m.Text, m.Namespace)
	if err != nil {
		return nil, err
	}
	if len(objects) == 0 {
		return nil, fmt.Errorf("%s: holds no object", m.File)
	}
	for _, o := range objects {
		if api.KindOf(o).Namespaced && o.GetNamespace() == "" {
			o.SetNamespace(m.Namespace)
		}
	}
	return objects, nil
}

// Apply writes the objects and waits until every node whose agent is not stopped has them
// in its kernel. It returns what it did, for the user.
func (c *Client) Apply(ctx context.Context, m Manifest) (string, error) {
	return c.write(ctx, m, applyObjects)
}

// Delete deletes the objects and waits until every node whose agent is not stopped has
// done so.
func (c *Client) Delete(ctx context.Context, m Manifest) (string, error) {
	return c.write(ctx, m, deleteObjects)
}

// write does something with the objects of a manifest in the datastore.
func (c *Client) write(ctx context.Context, m Manifest, do func(context.Context, store.Store, []api.Object) (string, error)) (string, error) {
	objects, err := m.objects()
	if err != nil {
		return "", err
	}
	return c.change(ctx, m.Patience, func(st store.Store) (string, error) { return do(ctx, st, objects) })
}

// change does something in the datastore, and waits until the revision at which the
// datastore then is stands in every kernel.
func (c *Client) change(ctx context.Context, patience time.Duration, do func(store.Store) (string, error)) (string, error) {
	if err := c.call(ctx, "etcd", EtcdCheck, io.Discard, nil); err != nil {
		return "", err
	}
	st, err := c.dir.openStore(ctx)
	if err != nil {
		return "", err
	}
	defer st.Close()
	said, err := do(st)
	if err != nil {
		return said, err
	}
	_, revision, err := st.List(ctx, api.KindClusterInformation.Name, "")
	if err != nil {
		return said, err
	}
	stopped, err := c.Wait(ctx, revision, patience)
	for _, n := range stopped {
		said += fmt.Sprintf("not yet in force on %s, whose agent is stopped\n", n)
	}
	return said, err
}

// Wait waits until every node whose agent is not stopped has the revision of the datastore
// in its kernel. It returns the names of those whose agent is.
func (c *Client) Wait(ctx context.Context, revision store.Revision, patience time.Duration) (stopped []string, err error) {
	return stopped, c.call(ctx, "wait", WaitRequest{Revision: revision, Patience: patience}, io.Discard, &stopped)
}
