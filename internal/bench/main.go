package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// options are the command line, handed on to the process inside as JSON.
type options struct {
	Rows   []string
	Long   bool
	Output string // text or json
	Bin    string // directory of the programs
	Disk   string // directory for etcd and the records of pods; empty: tmpfs
	Keep   bool   // print the agent's log at the end
}

// row measures one subject.
type row struct {
	name string
	run  func(context.Context, *bench) error
}

var rows = []row{
	{"exec", runExec},
	{"cni", runCNI},
	{"policy", runPolicy},
	{"set", runSet},
	{"start", runStart},
	{"calc", runCalc},
	{"ipam", runIPAM},
	{"ctl", runCtl},
	{"nft", runReadback},
	{"rules", runRules},
	{"path", runPath},
	{"iptables", runIptables},
	{"micro", runMicro},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the command line, or one of the processes that this program starts of itself.
func run() error {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "inside":
			return inside(os.Args[2:])
		case "etcd":
			return serveEtcd(os.Args[2:])
		case "floor":
			return serveFloor(os.Args[2:])
		case "calc":
			return calcProcess(os.Args[2:])
		}
	}
	o, err := parse()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return outside(ctx, o)
}

func parse() (options, error) {
	o := options{}
	names := ""
	flag.StringVar(&names, "rows", os.Getenv("ROWS"), "rows to measure, separated by commas; none: all of "+rowNames())
	flag.BoolVar(&o.Long, "long", os.Getenv("BENCH") == "long", "take more samples")
	flag.StringVar(&o.Output, "o", "text", "text or json")
	flag.StringVar(&o.Bin, "bin", "bin", "directory of calico, calico-cni, calicoctl and bench-empty")
	flag.StringVar(&o.Disk, "disk", "", "directory in which etcd and the agent write to disk; empty: they write to memory")
	flag.BoolVar(&o.Keep, "log", false, "print the agent's log at the end")
	flag.Parse()
	for n := range strings.SplitSeq(names, ",") {
		if n = strings.TrimSpace(n); n == "" {
			continue
		}
		if !slices.ContainsFunc(rows, func(r row) bool { return r.name == n }) {
			return o, fmt.Errorf("unknown row %q: want some of %s", n, rowNames())
		}
		o.Rows = append(o.Rows, n)
	}
	if o.Output != "text" && o.Output != "json" {
		return o, fmt.Errorf("-o %q: want text or json", o.Output)
	}
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if os.Getuid() != 0 {
		return o, fmt.Errorf("needs root: it makes namespaces")
	}
	var err error
	o.Bin, err = filepath.Abs(o.Bin)
	return o, err
}

func rowNames() string {
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	return strings.Join(names, ",")
}

// measure runs the rows and prints what they found. A row that fails is told, and the
// others go on.
func measure(ctx context.Context, b *bench) error {
	failed := 0
	for _, r := range rows {
		if len(b.options.Rows) > 0 && !slices.Contains(b.options.Rows, r.name) || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s …\n", r.name)
		if err := b.row(ctx, r); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", r.name, err)
			failed++
		}
	}
	if b.options.Output == "json" {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(records(b.results)); err != nil {
			return err
		}
	} else {
		fmt.Print(table(b.results))
	}
	if failed > 0 {
		return fmt.Errorf("%d rows could not be measured", failed)
	}
	return ctx.Err()
}
