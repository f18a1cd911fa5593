package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/calicogo/calico/api"
	"github.com/calicogo/calico/store"
)

// Configure changes parameters of the FelixConfiguration `default`, each NAME=VALUE, where
// NAME= takes the parameter away, and waits until every node whose agent is not stopped has
// the change in its kernel. It returns what it did, for the user.
func (c *Client) Configure(ctx context.Context, settings []string, patience time.Duration) (string, error) {
	change, err := parseSettings(settings)
	if err != nil {
		return "", &ExitError{Code: 2, Msg: err.Error()}
	}
	return c.change(ctx, patience, func(st store.Store) (string, error) {
		felix, err := felixConfiguration(ctx, st)
		if err != nil {
			return "", err
		}
		for name, value := range change {
			if value == nil {
				delete(felix.Spec, name)
			} else {
				felix.Spec[name] = value
			}
		}
		return applyObjects(ctx, st, []api.Object{felix})
	})
}

// felixConfiguration reads the one named default, or makes an empty one.
func felixConfiguration(ctx context.Context, st store.Store) (*api.FelixConfiguration, error) {
	named := &api.FelixConfiguration{Meta: api.Named(api.KindFelixConfiguration, "", "default")}
	got, err := st.Get(ctx, store.KeyOf(named))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if felix, ok := got.(*api.FelixConfiguration); ok && err == nil {
		named.Spec = felix.Spec
	}
	if named.Spec == nil {
		named.Spec = api.FelixConfigurationSpec{}
	}
	return named, nil
}

// parseSettings reads NAME=VALUE. A value is JSON, or else a string.
func parseSettings(settings []string) (map[string]json.RawMessage, error) {
	change := map[string]json.RawMessage{}
	for _, text := range settings {
		name, value, ok := strings.Cut(text, "=")
		switch {
		case !ok || name == "":
			return nil, fmt.Errorf("%q: want NAME=VALUE, such as logPrefix=ours", text)
		case value == "":
			change[name] = nil
		case json.Valid([]byte(value)):
			change[name] = json.RawMessage(value)
		default:
			change[name] = json.RawMessage(encode(value))
		}
	}
	return change, nil
}
