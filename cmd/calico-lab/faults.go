package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/calicogo/calico/lab"
)

func nodeCommand(f *flags) *cobra.Command {
	c := groupCommand("node", "Kill, stop or start a node's agent; its pods stay as they are")
	for _, fault := range []struct {
		do    lab.NodeFault
		short string
	}{
		{lab.NodeKill, "Kill a node's agent (SIGKILL); it is started again after a second"},
		{lab.NodeStop, "End a node's agent, which stays ended"},
		{lab.NodeStart, "Start a node's agent that was stopped, and return when it is ready"},
	} {
		c.AddCommand(&cobra.Command{
			Use:   string(fault.do) + " NODE",
			Short: fault.short,
			Args:  usage(cobra.ExactArgs(1)),
			RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
				return l.Node(c.Context(), lab.NodeRequest{Node: args[0], Do: fault.do}, c.OutOrStdout())
			}),
		})
	}
	return c
}

func etcdCommand(f *flags) *cobra.Command {
	c := groupCommand("etcd", "Stop or start the datastore")
	for _, fault := range []struct {
		do    lab.EtcdFault
		short string
	}{
		{lab.EtcdStop, "Stop etcd at once, as if its machine failed; its data stay"},
		{lab.EtcdStart, "Start etcd on its data, and return when it serves"},
	} {
		c.AddCommand(&cobra.Command{
			Use:   string(fault.do),
			Short: fault.short,
			Args:  usage(cobra.NoArgs),
			RunE: client(f, func(c *cobra.Command, l *lab.Client, _ []string) error {
				return l.Etcd(c.Context(), fault.do, c.OutOrStdout())
			}),
		})
	}
	return c
}

// groupCommand is a command that only has others below it.
func groupCommand(name, short string) *cobra.Command {
	return &cobra.Command{
		Use:   name,
		Short: short,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(fmt.Errorf("unknown command %q: `calico lab %s --help` lists those there are", args[0], name))
			}
			return c.Help()
		},
	}
}
