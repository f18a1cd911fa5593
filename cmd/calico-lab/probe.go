package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/calicogo/calico/lab"
)

func probeCommand(f *flags) *cobra.Command {
	r := lab.ProbeRequest{}
	output := ""
	c := &cobra.Command{
		Use:   "probe FROM TO:PORT [FROM TO:PORT]...",
		Short: "Open new flows at a steady rate, and count those that are lost",
		Long: `Open new flows at a steady rate between pods, nodes or addresses, and say what became
of them: each probe is a flow of its own, so that it meets the policies of its moment.
Between two pods the interfaces of both are watched: only a packet that one saw and the
other did not is lost, and a late answer is none.

Exit code 0: none was lost (with --denied: none arrived); 1 else. Ctrl-C ends the probing
and prints what there is.`,
		Example: `  calico lab probe web db:80 --rate 100 --for 10s
  calico lab probe stranger db:80 --denied --for 5s`,
		Args: usage(cobra.MinimumNArgs(2)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			var err error
			if r.Flows, err = lab.ParseProbeFlows(args); err != nil {
				return usageError(err)
			}
			if output != "" && output != "json" {
				return usageError(fmt.Errorf("-o %q: want json, or nothing for text", output))
			}
			r.Default = f.namespace
			if output == "" {
				_, err = l.Probe(c.Context(), r, c.OutOrStdout())
				return err
			}
			r.Each = true
			results, err := l.Probe(c.Context(), r, io.Discard)
			if jsonErr := json.NewEncoder(c.OutOrStdout()).Encode(results); jsonErr != nil {
				return jsonErr
			}
			return err
		}),
	}
	c.Flags().BoolVar(&r.UDP, "udp", false, "UDP instead of TCP")
	c.Flags().Float64Var(&r.Rate, "rate", 10, "probes a second, of each flow")
	c.Flags().DurationVar(&r.For, "for", 0, "stop after this time (default: at Ctrl-C)")
	c.Flags().BoolVar(&r.Denied, "denied", false, "expect that none arrives")
	c.Flags().StringVarP(&output, "output", "o", "", "json: every probe, with the time of CLOCK_MONOTONIC in nanoseconds")
	return c
}
