package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/calicogo/calico/lab"
)

func pingCommand(f *flags) *cobra.Command {
	r := lab.PingRequest{}
	c := &cobra.Command{
		Use:   "ping FROM TO",
		Short: "Ping a pod, a node or an address from a pod or node",
		Args:  usage(cobra.ExactArgs(2)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			r.From, r.To, r.Default = args[0], args[1], f.namespace
			_, err := l.Ping(c.Context(), r, c.OutOrStdout())
			return err
		}),
	}
	c.Flags().IntVarP(&r.Count, "count", "c", 1, "number of echo requests")
	c.Flags().DurationVar(&r.Timeout, "timeout", 3*time.Second, "how long to wait for the first reply")
	return c
}

func connectCommand(f *flags) *cobra.Command {
	r := lab.ConnectRequest{}
	c := &cobra.Command{
		Use:   "connect FROM TO:PORT",
		Short: "Connect to a pod, a node or an address from a pod or node",
		Args:  usage(cobra.ExactArgs(2)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			r.From, r.To, r.Default = args[0], args[1], f.namespace
			return l.Connect(c.Context(), r, c.OutOrStdout())
		}),
	}
	c.Flags().BoolVar(&r.UDP, "udp", false, "UDP instead of TCP")
	return c
}

func captureCommand(f *flags) *cobra.Command {
	r := lab.CaptureRequest{}
	c := &cobra.Command{
		Use:   "capture NODE",
		Short: "Print the packets on a node's link to the others",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			r.Node = args[0]
			return l.Capture(c.Context(), r, c.OutOrStdout())
		}),
	}
	c.Flags().IntVarP(&r.Count, "count", "c", 0, "stop after so many packets")
	c.Flags().StringVar(&r.Match, "match", "", "only packets whose line contains this, such as \"echo request\"")
	c.Flags().DurationVar(&r.For, "for", 0, "stop after this time")
	return c
}

func logCommand(f *flags) *cobra.Command {
	r := lab.LogRequest{}
	c := &cobra.Command{
		Use:   "log NODE",
		Short: "Print the packets that the action Log logs on a node, if it logs to NFLOG",
		Example: `  calico lab configure logActionNFLOGGroup=1
  calico lab log node1`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			r.Node = args[0]
			return l.Log(c.Context(), r, c.OutOrStdout())
		}),
	}
	c.Flags().Uint16Var(&r.Group, "group", 1, "group of NFLOG")
	c.Flags().IntVarP(&r.Count, "count", "c", 0, "stop after so many packets")
	c.Flags().StringVar(&r.Match, "match", "", "only packets whose line contains this")
	c.Flags().DurationVar(&r.For, "for", 0, "stop after this time")
	return c
}

func routesCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "routes NODE",
		Short: "Print a node's routes",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			return l.Routes(c.Context(), args[0], c.OutOrStdout())
		}),
	}
}

func statusCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Print the state of nodes and pods",
		Args:  usage(cobra.NoArgs),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, _ []string) error {
			st, err := l.Status(c.Context())
			if err != nil {
				return err
			}
			return st.Print(c.OutOrStdout())
		}),
	}
}

func envCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: "Print the variables by which calicoctl finds the lab's datastore",
		Args:  usage(cobra.NoArgs),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, _ []string) error {
			line := "export"
			for _, v := range l.Dir().Environ() {
				name, value, _ := strings.Cut(v, "=")
				line += " " + name + "=" + shellWord(value)
			}
			fmt.Fprintln(c.OutOrStdout(), line)
			return nil
		}),
	}
}

var plainWord = regexp.MustCompile(`^[-A-Za-z0-9_@%+=:,./]+$`)

// shellWord quotes s if a shell would read anything into it.
func shellWord(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func applyCommand(f *flags) *cobra.Command {
	return fileCommand(f, "apply", "Write the objects of a file, and return when they are in force", (*lab.Client).Apply)
}

func deleteCommand(f *flags) *cobra.Command {
	return fileCommand(f, "delete", "Delete the objects of a file, and return when that is in force", (*lab.Client).Delete)
}

func configureCommand(f *flags) *cobra.Command {
	var patience time.Duration
	c := &cobra.Command{
		Use:   "configure NAME=VALUE...",
		Short: "Change parameters of the FelixConfiguration, and return when they are in force",
		Example: `  calico lab configure nftablesMode=Disabled iptablesBackend=Legacy
  calico lab configure logPrefix=`,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			said, err := l.Configure(c.Context(), args, patience)
			fmt.Fprint(c.OutOrStdout(), said)
			return err
		}),
	}
	c.Flags().DurationVar(&patience, "timeout", lab.InForce, "how long to wait for the nodes")
	return c
}

func fileCommand(f *flags, name, short string, do func(*lab.Client, context.Context, lab.Manifest) (string, error)) *cobra.Command {
	var file string
	var patience time.Duration
	c := &cobra.Command{
		Use:   name + " -f FILE|-",
		Short: short,
		Args:  usage(cobra.NoArgs),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, _ []string) error {
			if file == "" {
				return usageError(fmt.Errorf("usage: %s", c.UseLine()))
			}
			m, err := lab.ReadManifest(c.Context(), file, os.Stdin)
			if err != nil {
				return err
			}
			m.Namespace, m.Patience = f.namespace, patience
			said, err := do(l, c.Context(), m)
			fmt.Fprint(c.OutOrStdout(), said)
			return err
		}),
	}
	c.Flags().StringVarP(&file, "filename", "f", "", "file with YAML or JSON documents, or - for standard input")
	c.Flags().DurationVar(&patience, "timeout", lab.InForce, "how long to wait for the nodes")
	return c
}

func demoCommand(f *flags) *cobra.Command {
	o := &optionFlags{}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Tell the story: pods, policies, and packets that prove it",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			options, err := o.options()
			if err != nil {
				return usageError(err)
			}
			name := f.name
			if !c.Flags().Changed("name") {
				name = "demo"
			}
			return lab.Demo(c.Context(), name, options, c.OutOrStdout())
		},
	}
	o.register(c)
	return c
}
