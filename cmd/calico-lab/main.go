// The command calico-lab is the virtual cluster, and the only one that has an etcd server
// in it. `calico lab` runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/calicogo/calico/lab"
)

// version is set by the linker.
var version = "v0.1.0-dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // who asks twice wants it at once
	// `calico lab demo | head` must not leave its lab up.
	ctx, _ = signal.NotifyContext(ctx, syscall.SIGPIPE)
	err := run(ctx, os.Args[1:])
	stop()
	var exit *lab.ExitError
	silent := errors.As(err, &exit) && exit.Msg == "" || errors.Is(err, syscall.EPIPE)
	if err != nil && !silent {
		fmt.Fprintln(os.Stderr, "calico lab:", err)
	}
	os.Exit(lab.ExitCode(err))
}

// run runs one of the lab's own processes, or a command of the user.
func run(ctx context.Context, args []string) error {
	if len(args) == 2 {
		switch args[0] {
		case "init":
			return lab.Init(args[1])
		case "supervise":
			return lab.Supervise(args[1])
		case "serve-etcd":
			return lab.ServeEtcd(args[1], startEtcd)
		}
	}
	cmd := rootCommand()
	cmd.SetArgs(args)
	return cmd.ExecuteContext(ctx)
}
