package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/calicogo/calico/lab"
)

// flags are those that every command takes.
type flags struct {
	name      string // of the lab
	namespace string
}

func rootCommand() *cobra.Command {
	f := &flags{}
	root := &cobra.Command{
		Use:         "lab",
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "calico lab"},
		Short:       "A virtual cluster on this machine",
		Long: `A virtual cluster on this machine: every node a namespace that runs the real agent.
A pod is written [NAMESPACE/]POD; nodes are node1, node2, …

Exit code 0: done; 1: failed, or nothing answered; 2: wrong usage; exec has that of its
command. A lab's data and logs are in a directory of its own below $CALICO_LAB_DIR
(/var/lib/calico-lab if unset), until it is taken down.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usage(cobra.NoArgs),
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	root.PersistentFlags().StringVar(&f.name, "name", "lab", "name of the lab")
	root.PersistentFlags().StringVarP(&f.namespace, "namespace", "n", "default", "namespace of pods and objects that are given without one")
	root.AddCommand(
		upCommand(f), downCommand(f), demoCommand(f),
		runCommand(f), rmCommand(f), execCommand(f), pingCommand(f), connectCommand(f), flowCommand(f), sendCommand(f),
		applyCommand(f), deleteCommand(f), configureCommand(f),
		routesCommand(f), statusCommand(f), envCommand(f), captureCommand(f), logCommand(f),
		nodeCommand(f), etcdCommand(f), probeCommand(f),
	)
	return root
}

// usageError is an error of exit code 2.
func usageError(err error) error {
	if err == nil {
		return nil
	}
	return &lab.ExitError{Code: 2, Msg: err.Error()}
}

// usage makes a wrong number of arguments a usage error that says what is wanted.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if !c.HasParent() && len(args) > 0 {
			return usageError(fmt.Errorf("unknown command %q: `calico lab --help` lists those there are", args[0]))
		}
		if err := check(c, args); err != nil {
			return usageError(fmt.Errorf("usage: %s", c.UseLine()))
		}
		return nil
	}
}

// client makes a RunE of a function that needs a lab that is up.
func client(f *flags, run func(c *cobra.Command, l *lab.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		l, err := lab.NewClient(f.name)
		if err != nil {
			return err
		}
		return run(c, l, args)
	}
}

func upCommand(f *flags) *cobra.Command {
	o := &optionFlags{}
	lifeline := -1
	c := &cobra.Command{
		Use:   "up",
		Short: "Make a lab, and return when its nodes are ready",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			options, err := o.options()
			if err != nil {
				return usageError(err)
			}
			var line *os.File
			if lifeline >= 0 {
				line = os.NewFile(uintptr(lifeline), "lifeline")
			}
			if err := lab.Up(c.Context(), f.name, options, c.OutOrStdout(), line); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "lab %q is up, with %s\n", f.name, options.Backend)
			return nil
		},
	}
	o.register(c)
	c.Flags().IntVar(&lifeline, "lifeline-fd", -1, "descriptor at whose end of file the lab ends")
	c.Flags().MarkHidden("lifeline-fd")
	return c
}

func downCommand(f *flags) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "down",
		Short: "End a lab and remove all of it",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			names := []string{f.name}
			if all {
				var err error
				if names, err = lab.Labs(); err != nil {
					return err
				}
			}
			var errs []error
			for _, name := range names {
				errs = append(errs, lab.Down(c.Context(), name, c.OutOrStdout()))
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every lab")
	return c
}

func runCommand(f *flags) *cobra.Command {
	var node string
	var labels, ports []string
	var account string
	c := &cobra.Command{
		Use:   "run POD [-- COMMAND...]",
		Short: "Make a pod, and return when it can be reached",
		Args:  usage(cobra.MinimumNArgs(1)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			if len(args) > 1 && c.ArgsLenAtDash() != 1 {
				return usageError(fmt.Errorf("usage: %s", c.UseLine()))
			}
			pod, err := lab.ParsePodName(args[0], f.namespace)
			if err != nil {
				return usageError(err)
			}
			pairs, err := lab.ParseLabels(labels)
			if err != nil {
				return usageError(err)
			}
			named, err := lab.ParsePorts(ports)
			if err != nil {
				return usageError(err)
			}
			p, err := l.Run(c.Context(), lab.RunRequest{
				Pod: pod, Node: node, Labels: pairs, ServiceAccount: account, Ports: named, Command: args[1:],
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%v runs on %s with %v\n", p.Pod, p.Node, p.Addrs)
			return nil
		}),
	}
	c.Flags().StringVar(&node, "node", "", "node of the pod (default: the one with the fewest)")
	c.Flags().StringArrayVarP(&labels, "labels", "l", nil, "label of the pod, key=value; may be repeated")
	c.Flags().StringArrayVarP(&ports, "port", "p", nil, "named port of the pod, such as web=tcp/80; may be repeated")
	c.Flags().StringVar(&account, "service-account", "", "service account of the pod (default: none)")
	return c
}

func rmCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "rm POD...",
		Short: "Remove pods",
		Args:  usage(cobra.MinimumNArgs(1)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			for _, arg := range args {
				pod, err := lab.ParsePodName(arg, f.namespace)
				if err != nil {
					return usageError(err)
				}
				if err := l.Remove(c.Context(), pod); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func execCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "exec POD|NODE -- COMMAND...",
		Short: "Run a command in a pod or node",
		Args:  usage(cobra.MinimumNArgs(2)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			if c.ArgsLenAtDash() != 1 {
				return usageError(fmt.Errorf("usage: %s", c.UseLine()))
			}
			r := lab.ExecRequest{In: args[0], Command: args[1:], Default: f.namespace}
			return l.Exec(c.Context(), r, os.Stdin, os.Stdout, os.Stderr)
		}),
	}
}
