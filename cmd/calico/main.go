// Command calico is what runs on a node, and the front of the other programs: `calico
// node` is the node itself; `calico lab` and `calico ctl` exec calico-lab and calicoctl,
// which stand beside this program or on PATH.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/calicogo/calico/node"
)

var version = "v0.1.0-dev" // set by the linker

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "calico",
		Short:         "Pod networking and network policy for Kubernetes",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q: see calico --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(nodeCommand(), execCommand("lab", "calico-lab", "A virtual cluster on this machine"),
		execCommand("ctl", "calicoctl", "Read and write the cluster's configuration"), versionCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "calico:", err)
		os.Exit(exitCode(err))
	}
}

// usageError is a wrong command line: exit code 2.
type usageError struct{ error }

func exitCode(err error) int {
	if errors.As(err, &usageError{}) {
		return 2
	}
	return 1
}

func nodeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "node",
		Short: "Run the node: agent, CNI server and tunnels; configured by the environment",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := node.FromEnviron(os.Environ())
			if err != nil {
				return usageError{err}
			}
			if os.Getuid() != 0 {
				return errors.New("a node must run as root: it programs the kernel's network")
			}
			cfg.Version = version
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			err = node.Run(cmd.Context(), cfg, log)
			if errors.Is(err, context.Canceled) {
				return nil // told to end; the kernel keeps its state
			}
			return err
		},
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), version) },
	}
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

// execCommand replaces this process by a sibling program: each links only what it needs.
func execCommand(name, program, short string) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Short:              short + " (" + program + ")",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := node.Sibling(program)
			if err != nil {
				return err
			}
			return syscall.Exec(path, append([]string{program}, args...), os.Environ())
		},
	}
}
