package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

func (c *cli) versionCommand() *cobra.Command {
	client := false
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of calicoctl and of the cluster",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return wanted(cmd)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(c.Stdout, "Client Version:    %s\n", Version)
			if client {
				return nil
			}
			if err := c.with(cmd, c.clusterVersion); err != nil {
				return fmt.Errorf("%s: %w", "Unable to retrieve Cluster Version or Type", err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&client, "client", false, "that of calicoctl only: no datastore is needed")
	return cmd
}

func (c *cli) clusterVersion(ctx context.Context, st store.Store) error {
	key := store.Key{Kind: api.KindClusterInformation.Name, Name: "default"}
	o, err := st.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: no node has written it yet", notFound(key))
	}
	if err != nil {
		return err
	}
	spec := o.(*api.ClusterInformation).Spec
	fmt.Fprintf(c.Stdout, "Cluster Version:   %s\n", cmp.Or(spec.CalicoVersion, "unknown"))
	fmt.Fprintf(c.Stdout, "Cluster Type:      %s\n", cmp.Or(spec.ClusterType, "unknown"))
	return nil
}
