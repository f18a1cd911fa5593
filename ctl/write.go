package ctl

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// input is how a command line names objects: by files, or by kind and names.
type input struct {
	files files
	args  []string
}

func (c *cli) inputFlags(cmd *cobra.Command) *input {
	in := &input{files: files{stdin: c.Stdin}}
	f := cmd.Flags()
	f.StringArrayVarP(&in.files.names, "filename", "f", nil, "file or directory of YAML or JSON documents, or - for standard input; may be repeated")
	f.BoolVarP(&in.files.recursive, "recursive", "R", false, "also read the directories in directories")
	f.BoolVar(&in.files.skipEmpty, "skip-empty", false, "it is no error if a file or directory holds no object")
	f.StringVarP(&in.files.namespace, "namespace", "n", "", "namespace of objects that do not say theirs (default \"default\")")
	return in
}

// onlyFiles refuses a command line that names no file, or anything else.
func (in *input) onlyFiles(cmd *cobra.Command, args []string) error {
	if len(in.files.names) == 0 || len(args) > 0 {
		return wanted(cmd)
	}
	return nil
}

// filesOrKind refuses a command line that names objects in no way, or in both.
func (in *input) filesOrKind(cmd *cobra.Command, args []string) error {
	if (len(in.files.names) == 0) == (len(args) == 0) {
		return wanted(cmd)
	}
	in.args = args
	return nil
}

// kind is that of the arguments.
func (in *input) kind() (*api.Kind, error) {
	k, err := api.FindKind(in.args[0])
	if err != nil {
		return nil, usageError{err}
	}
	return k, nil
}

// named makes an object of each name among the arguments.
func (in *input) named() ([]api.Object, error) {
	kind, err := in.kind()
	if err != nil {
		return nil, err
	}
	var all []api.Object
	for _, name := range in.args[1:] {
		o := kind.New()
		o.SetName(name)
		if kind.Namespaced {
			o.SetNamespace(in.namespace())
		}
		all = append(all, o)
	}
	return all, nil
}

func (in *input) namespace() string {
	if in.files.namespace == "" {
		return defaultNamespace
	}
	return in.files.namespace
}

// writeCommand is apply, create or replace.
func (c *cli) writeCommand(v verb) *cobra.Command {
	short := map[verb]string{
		verbApply:   "Create objects, or replace those that exist",
		verbCreate:  "Create objects that do not exist",
		verbReplace: "Replace objects that exist",
	}
	opts := Options{}
	cmd := &cobra.Command{Use: string(v) + " -f FILE|DIRECTORY|-", Short: short[v]}
	cmd.Long = short[v] + ".\nAll are checked before any is written: if one is bad, none is."
	in := c.inputFlags(cmd)
	cmd.Args = in.onlyFiles
	if v == verbCreate {
		cmd.Flags().BoolVar(&opts.SkipExists, "skip-exists", false, "leave what exists as it is, without an error")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		objects, err := in.files.objects(cmd.Context(), func(o api.Object) error { return check(v, o, opts) })
		if err != nil {
			return err
		}
		return c.write(cmd, v, objects, opts)
	}
	return cmd
}

func (c *cli) deleteCommand() *cobra.Command {
	opts := Options{}
	cmd := &cobra.Command{
		Use:   "delete (KIND NAME... | -f FILE|DIRECTORY|-)",
		Short: "Delete objects",
		Long:  "Delete objects, named by kind and name or in files.\nAll are checked before any is deleted: if one cannot be deleted, none is.",
	}
	in := c.inputFlags(cmd)
	cmd.Flags().BoolVarP(&opts.SkipNotExists, "skip-not-exists", "s", false, "it is no error if an object does not exist")
	cmd.Args = in.filesOrKind
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return wanted(cmd)
		}
		get := in.named
		if len(args) == 0 {
			get = func() ([]api.Object, error) {
				return in.files.objects(cmd.Context(), func(o api.Object) error { return check(verbDelete, o, opts) })
			}
		}
		objects, err := get()
		if err != nil {
			return err
		}
		return c.write(cmd, verbDelete, objects, opts)
	}
	return cmd
}

// write does what v says with objects, and says so.
func (c *cli) write(cmd *cobra.Command, v verb, objects []api.Object, opts Options) error {
	if len(objects) == 0 {
		fmt.Fprint(c.Stdout, Summary(v.done(), nil))
		return nil
	}
	return c.with(cmd, func(ctx context.Context, st store.Store) error {
		results, err := run(ctx, st, v, objects, opts)
		for _, b := range c.bad {
			fmt.Fprintln(c.Stderr, printable("Warning: "+b.Error()))
		}
		if err != nil {
			return failure(v, objects, results, err)
		}
		fmt.Fprint(c.Stdout, Summary(v.done(), results))
		return nil
	})
}

func (c *cli) validateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate -f FILE|DIRECTORY|-",
		Short: "Check files, without a datastore",
	}
	in := c.inputFlags(cmd)
	cmd.Args = in.onlyFiles
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		objects, err := in.files.objects(cmd.Context(), func(o api.Object) error { return check(verbValidate, o, Options{}) })
		if err != nil {
			return err
		}
		if err := Validate(objects, Options{}); err != nil {
			return failure(verbValidate, objects, nil, err)
		}
		results := make([]Result, len(objects))
		for i, o := range objects {
			results[i].Key = store.KeyOf(o)
		}
		fmt.Fprint(c.Stdout, Summary(verbValidate.done(), results))
		return nil
	}
	return cmd
}
