package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/calicogo/calico/lab"
)

func flowCommand(f *flags) *cobra.Command {
	r := lab.FlowRequest{}
	c := &cobra.Command{
		Use:   "flow FROM TO:PORT",
		Short: "Hold a TCP flow open, and say how it ends and after how long",
		Long: `Hold a TCP flow open to a pod or an address: a line goes every so often, which the listener
on port 80 of every pod answers. Says when the flow is open, and in the end what became of it:

  alive    it lives; the time was over
  reset    it was cut by a reset, as policy does
  closed   the listener has closed it
  silent   a line was not answered for three seconds

If the pod has several addresses there is a flow to each.

Exit code 0: all ended as --expect says, or it says nothing; 1 else. Ctrl-C ends the flow.`,
		Example: `  calico lab flow web db:80 --for 10s
  calico lab flow stranger db:80 --expect reset &
  calico lab apply -f deny.yaml`,
		Args: usage(cobra.ExactArgs(2)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			r.From, r.To, r.Default = args[0], args[1], f.namespace
			if err := r.Validate(); err != nil {
				return usageError(err)
			}
			return l.Flow(c.Context(), r, c.OutOrStdout())
		}),
	}
	c.Flags().DurationVar(&r.For, "for", 0, "stop after this time (default: when it ends, or at Ctrl-C)")
	c.Flags().DurationVar(&r.Every, "every", 100*time.Millisecond, "how often a line is sent")
	c.Flags().StringVar((*string)(&r.Expect), "expect", "", "how all shall end: alive, reset, closed or silent")
	return c
}
