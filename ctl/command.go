package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/calicogo/calico/store"
	"github.com/calicogo/calico/store/etcd"
)

// Program is calicoctl and what it has of the world around it.
type Program struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Environ        []string // as os.Environ has it
	// Open opens the datastore; nil means etcd. What it returns is closed if it is an
	// [io.Closer].
	Open func(context.Context, etcd.Config) (store.Store, error)
}

// Run runs one command line, without the name of the program, and returns its exit code: 0
// if it did what it was told, 1 if not, 2 if it did not understand. Errors are one line on
// Stderr each.
func (p Program) Run(ctx context.Context, args []string) int {
	root := p.rootCommand()
	root.SetArgs(args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	for _, e := range each(err) {
		fmt.Fprintln(p.Stderr, printable(e.Error()))
	}
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}

// each takes apart what errors.Join has joined.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// printable is s without what would end the line or command the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// usageError is a command line that was not understood.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// cli is what the commands share: the program, and the flags that all take.
type cli struct {
	Program
	config string  // file
	bad    []error // objects that the datastore left out because they cannot be read
}

func (p Program) rootCommand() *cobra.Command {
	c := &cli{Program: p}
	root := &cobra.Command{
		Use:               "calicoctl",
		Short:             "Read and write the configuration of Calico",
		Version:           Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q: calicoctl --help lists those there are", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w: see %s --help", err, cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVarP(&c.config, "config", "c", DefaultConfigFile, "file that says where the datastore is; ETCD_ENDPOINTS and the like override it")
	f.StringP("log-level", "l", "", "accepted for scripts; there is no log")
	f.Bool("allow-version-mismatch", false, "accepted for scripts; versions are not compared")
	root.AddCommand(
		c.writeCommand(verbApply), c.writeCommand(verbCreate), c.writeCommand(verbReplace),
		c.deleteCommand(), c.validateCommand(), c.getCommand(), c.versionCommand(),
	)
	return root
}

// with opens the datastore and has do work on it.
func (c *cli) with(cmd *cobra.Command, do func(context.Context, store.Store) error) error {
	conf, err := c.connection(cmd.Flags().Changed("config"))
	if err != nil {
		return err
	}
	open := c.Open
	if open == nil {
		open = c.openEtcd
	}
	st, err := open(cmd.Context(), conf)
	if err != nil {
		return err
	}
	if closer, ok := st.(io.Closer); ok {
		defer closer.Close()
	}
	return do(cmd.Context(), st)
}

func (c *cli) openEtcd(ctx context.Context, conf etcd.Config) (store.Store, error) {
	st, err := etcd.Open(ctx, conf)
	if err != nil {
		return nil, err // not a nil *etcd.Store in a store.Store
	}
	st.Bad = func(key string, err error) { c.bad = append(c.bad, fmt.Errorf("left out %s: %w", key, err)) }
	return st, nil
}

// wanted is a usage error that says how cmd is used.
func wanted(cmd *cobra.Command) error { return usagef("usage: %s", cmd.UseLine()) }
