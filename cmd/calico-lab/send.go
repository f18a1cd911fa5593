package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/calicogo/calico/lab"
)

func sendCommand(f *flags) *cobra.Command {
	r := lab.SendRequest{}
	var only4, only6 bool
	c := &cobra.Command{
		Use:   "send FROM[,FROM]... TO[,TO]... PACKET...",
		Short: "Send single packets of any protocol to pods, and say what becomes of each",
		Long: `Send single packets of any protocol from pods or nodes to pods, each the first of a flow,
and say what becomes of each: whether it arrived at the pod's interface, was rejected by
somebody on the way, or was dropped. No port has to be open for that.

A packet is tcp/PORT,PORT…, udp/…, sctp/…, udplite/…, ping, icmp/TYPE/CODE, icmp6/TYPE/CODE,
or the number of another protocol. It goes to every address of the pod, if the pod has several.

Exit code 0: all were as --expect says, or it says nothing; 1 else.`,
		Example: `  calico lab send web db tcp/5432 ping
  calico lab send stranger,other/stranger db tcp/22,5432 132 --expect dropped`,
		Args: usage(cobra.MinimumNArgs(3)),
		RunE: client(f, func(c *cobra.Command, l *lab.Client, args []string) error {
			r.From, r.To, r.Default = strings.Split(args[0], ","), strings.Split(args[1], ","), f.namespace
			for _, arg := range args[2:] {
				parcels, err := lab.ParseParcels(arg)
				if err != nil {
					return usageError(err)
				}
				r.Parcels = append(r.Parcels, parcels...)
			}
			if err := r.Validate(); err != nil {
				return usageError(err)
			}
			switch {
			case only4 && !only6:
				r.Family = 4
			case only6 && !only4:
				r.Family = 6
			}
			return l.Send(c.Context(), r, c.OutOrStdout())
		}),
	}
	c.Flags().StringVar((*string)(&r.Expect), "expect", "", "what shall become of all: arrived, rejected or dropped")
	c.Flags().Uint16Var(&r.SourcePort, "source-port", 0, "source port (default: a random one)")
	c.Flags().BoolVarP(&only4, "ipv4", "4", false, "only to IPv4 addresses")
	c.Flags().BoolVarP(&only6, "ipv6", "6", false, "only to IPv6 addresses")
	return c
}
