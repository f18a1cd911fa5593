// Command calicoctl reads and writes the configuration of Calico. It links a client of the
// datastore, and nothing of the node or of a server.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/calicogo/calico/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // who asks twice wants it at once
	p := ctl.Program{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Environ()}
	code := p.Run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
