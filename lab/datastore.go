package lab

import (
	"context"
	"io"
)

func (s *Supervisor) seed() error { return nil }

type Manifest struct {
	Name, Namespace string
	Text            []byte
}

func ReadManifest(file string, stdin io.Reader) (Manifest, error)           { return Manifest{}, nil }
func (c *Client) Apply(ctx context.Context, m Manifest) (string, error)     { return "", nil }
func (c *Client) Delete(ctx context.Context, m Manifest) (string, error)    { return "", nil }
func Demo(ctx context.Context, name string, o Options, out io.Writer) error { return nil }
