package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// query is a command line of get.
type query struct {
	*input
	allNamespaces bool
	export        bool
}

func (c *cli) getCommand() *cobra.Command {
	q, output := &query{}, ""
	cmd := &cobra.Command{
		Use:   "get (KIND [NAME...] | -f FILE|DIRECTORY|-)",
		Short: "Show objects",
		Long:  "Show objects. KIND is one of: " + strings.Join(kindNames(), ", ") + ".",
	}
	q.input = c.inputFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&output, "output", "o", string(formatTable), "ps (a table), wide (with more columns), yaml or json")
	f.BoolVarP(&q.allNamespaces, "all-namespaces", "A", false, "of all namespaces")
	f.BoolVarP(&q.allNamespaces, "all-namespaces-old", "a", false, "")
	f.MarkHidden("all-namespaces-old")
	f.BoolVar(&q.export, "export", false, "leave out what belongs to this datastore: resourceVersion, uid and age")
	cmd.Args = q.filesOrKind
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		form, err := parseFormat(output)
		if err != nil {
			return err
		}
		return c.get(cmd, q, form)
	}
	return cmd
}

func kindNames() []string {
	var all []string
	for _, k := range api.Kinds() {
		all = append(all, strings.ToLower(k.Name))
	}
	return all
}

// answer is what get found.
type answer struct {
	kind     *api.Kind // of all objects, if they have one in common
	objects  []api.Object
	revision store.Revision // at which they were listed, else 0
	single   bool           // one object was asked for
	missing  []error
}

// export takes from the objects what only holds in their datastore.
func (a *answer) export() {
	a.revision = 0
	for _, o := range a.objects {
		o.SetResourceVersion("")
		o.SetUID("")
		o.SetCreationTimestamp(metav1.Time{})
		o.SetManagedFields(nil)
		o.SetGeneration(0)
	}
}

func (c *cli) get(cmd *cobra.Command, q *query, form format) error {
	keys, err := q.keys(cmd.Context())
	if err != nil {
		return err
	}
	if len(q.args) == 0 && len(keys) == 0 && (form == formatTable || form == formatWide) {
		fmt.Fprint(c.Stdout, Summary("", nil))
		return nil
	}
	return c.with(cmd, func(ctx context.Context, st store.Store) error {
		a, err := q.answer(ctx, st, keys)
		if err != nil {
			return err
		}
		if q.export {
			a.export()
		}
		p := printer{out: c.Stdout, namespaces: q.allNamespaces || q.files.namespace != ""}
		if err := p.print(form, a); err != nil {
			return err
		}
		return errors.Join(append(a.missing, c.bad...)...)
	})
}

// keys are those of the objects that were asked for by name; nil if all of a kind were.
func (q *query) keys(ctx context.Context) ([]store.Key, error) {
	objects, err := q.objects(ctx)
	if err != nil {
		return nil, err
	}
	var keys []store.Key
	for _, o := range objects {
		k := store.KeyOf(o)
		if err := k.Check(); err != nil {
			return nil, err
		}
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	if q.allNamespaces && len(q.args) > 1 && len(keys) > 0 && keys[0].Namespace != "" {
		return nil, usagef("--all-namespaces cannot be used with a name: say the namespace with -n")
	}
	return keys, nil
}

func (q *query) objects(ctx context.Context) ([]api.Object, error) {
	if len(q.args) == 0 {
		return q.files.objects(ctx, func(api.Object) error { return nil })
	}
	return q.named()
}

func (q *query) answer(ctx context.Context, st store.Store, keys []store.Key) (answer, error) {
	if len(q.args) == 1 {
		return q.list(ctx, st)
	}
	a := answer{single: len(keys) == 1}
	for i, k := range keys {
		kind, _ := api.KindNamed(k.Kind)
		if i == 0 {
			a.kind = kind
		} else if a.kind != kind {
			a.kind = nil
		}
		o, err := st.Get(ctx, k)
		switch {
		case errors.Is(err, store.ErrNotFound):
			a.missing = append(a.missing, notFound(k))
		case errors.Is(err, store.ErrInvalid):
			a.missing = append(a.missing, err)
		case err != nil:
			return a, err
		default:
			a.objects = append(a.objects, o)
		}
	}
	return a, nil
}

// list finds all objects of a kind.
func (q *query) list(ctx context.Context, st store.Store) (answer, error) {
	kind, err := q.kind()
	if err != nil {
		return answer{}, err
	}
	namespace := ""
	if kind.Namespaced && !q.allNamespaces {
		namespace = q.namespace()
	}
	objects, rev, err := st.List(ctx, kind.Name, namespace)
	return answer{kind: kind, objects: objects, revision: rev}, err
}
