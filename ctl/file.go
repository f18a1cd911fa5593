package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/calicogo/calico/api"
)

// files says which objects a command line names by -f.
type files struct {
	names     []string // files, directories, or - for standard input
	recursive bool     // also the directories in directories
	skipEmpty bool
	namespace string // of objects that do not say theirs; empty: "default"
	stdin     io.Reader
}

// text is what one file holds.
type text struct {
	name string
	body []byte
}

// objects reads all objects of the files, in order, and has check check each. Its errors
// begin with file, document and line.
func (f files) objects(ctx context.Context, check func(api.Object) error) ([]api.Object, error) {
	texts, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	var all []api.Object
	for _, t := range texts {
		docs, err := api.Documents(t.name, t.body)
		if err != nil {
			return nil, err
		}
		if len(docs) == 0 && !f.skipEmpty {
			return nil, fmt.Errorf("%s: holds no object (--skip-empty makes that no error)", t.name)
		}
		for _, d := range docs {
			o, err := f.object(d)
			if err != nil {
				return nil, err
			}
			if err := check(o); err != nil {
				return nil, d.At(err)
			}
			all = append(all, o)
		}
	}
	return all, nil
}

func (f files) object(d api.Document) (api.Object, error) {
	if ofKubernetes(d) {
		return nil, fmt.Errorf("%s: %s %s is an object of Kubernetes: apply it with kubectl (in a lab: calico lab apply)", d.Where(), d.APIVersion, d.Kind)
	}
	o, err := d.Object()
	if err != nil || !api.KindOf(o).Namespaced {
		return o, err
	}
	switch ns := o.GetNamespace(); {
	case ns == "" && f.namespace == "":
		o.SetNamespace(defaultNamespace)
	case ns == "":
		o.SetNamespace(f.namespace)
	case f.namespace != "" && ns != f.namespace:
		return nil, fmt.Errorf("%s: %s %s: metadata.namespace: is %s, but --namespace is %s", d.Where(), d.Kind, o.GetName(), ns, f.namespace)
	}
	return o, nil
}

// defaultNamespace is that of objects which say none.
const defaultNamespace = "default"

// ofKubernetes tells whether d is an object that users know from kubectl. Calico's own
// kinds in group v1 are of its second version, which d.Object refuses.
func ofKubernetes(d api.Document) bool {
	group, _, _ := strings.Cut(d.APIVersion, "/")
	if group == "v1" {
		k, err := api.FindKind(d.Kind)
		return err != nil || k.Group != "" || d.Kind == "Node"
	}
	return strings.HasSuffix(group, ".k8s.io") || slices.Contains([]string{"apps", "batch", "policy", "autoscaling"}, group)
}

func (f files) read(ctx context.Context) ([]text, error) {
	var all []text
	for _, name := range f.names {
		texts, err := f.readOne(ctx, name)
		if err != nil {
			return nil, readError(name, err)
		}
		if len(texts) == 0 && !f.skipEmpty {
			return nil, fmt.Errorf("%s: holds no file that ends in .yaml, .yml or .json (--skip-empty makes that no error)", name)
		}
		all = append(all, texts...)
	}
	return all, nil
}

func (f files) readOne(ctx context.Context, name string) ([]text, error) {
	if name == "-" {
		body, err := ReadAll(ctx, f.stdin)
		return []text{{"standard input", body}}, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return f.readDir(name)
	}
	body, err := os.ReadFile(name)
	return []text{{name, body}}, err
}

// ReadAll is [io.ReadAll] that gives up when ctx ends: a terminal may say nothing for
// ever. What reads on then ends with the process.
func ReadAll(ctx context.Context, r io.Reader) ([]byte, error) {
	type result struct {
		body []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		body, err := io.ReadAll(r)
		read <- result{body, err}
	}()
	select {
	case got := <-read:
		return got.body, got.err
	case <-ctx.Done():
		return nil, errors.New("interrupted")
	}
}

// readDir reads the files of a directory, ordered by name.
func (f files) readDir(dir string) ([]text, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []text
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		isFile := slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
		info, err := os.Stat(name) // of what a link stands for
		if err != nil {
			if isFile {
				return nil, err
			}
			continue
		}
		var texts []text
		switch {
		case e.IsDir() && f.recursive: // a link to a directory may lead in a circle
			texts, err = f.readDir(name)
		case !info.IsDir() && isFile:
			var body []byte
			body, err = os.ReadFile(name)
			texts = []text{{name, body}}
		}
		if err != nil {
			return nil, err
		}
		all = append(all, texts...)
	}
	return all, nil
}

// readError says in one way why a file cannot be read.
func readError(name string, err error) error {
	var path *fs.PathError
	switch {
	case name == "-":
		return fmt.Errorf("standard input: cannot be read: %w", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no file %s", name)
	case errors.As(err, &path):
		return fmt.Errorf("%s: cannot be read: %w", path.Path, path.Err)
	}
	return fmt.Errorf("%s: cannot be read: %w", name, err)
}
