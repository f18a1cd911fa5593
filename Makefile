# `make` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
GO ?= go
BIN := bin
PROGRAMS := calico calico-cni calicoctl calico-lab
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo v0.1.0-dev)
export GORACE ?= atexit_sleep_ms=0

##@ Use
.PHONY: demo build
demo: build ## run the story on this machine: three nodes, three pods, two policies, over IPIP, over VXLAN and without encapsulation
	$(BIN)/calico lab demo --encap ipip
	$(BIN)/calico lab demo --encap vxlan
	$(BIN)/calico lab demo --encap none

build: ## build the programs into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION) -X github.com/calicogo/calico/ctl.Version=$(VERSION)' -o $(BIN)/ $(addprefix ./cmd/,$(PROGRAMS))

##@ Check
.PHONY: test lint unit differential soak-policy faults lab bench microbench vm
test: tools lint unit differential lab vm ## everything that CI runs

lint: ## gofmt, go vet, staticcheck, import law
	@out=$$(gofmt -l .); test -z "$$out" || { echo "gofmt: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) test ./internal/archtest

unit: ## unit tests with the race detector
	$(GO) test -race $$($(GO) list ./... | grep -v -e /lab$$ -e /internal/difftest$$ -e /internal/archtest$$)

differential: ## Eval, filter.Trace, nftables and both variants of iptables judge random packets alike
	@$(MAKE) --no-print-directory -j2 -Otarget verdicts verdicts-race

.PHONY: verdicts verdicts-race
verdicts:
	DIFFTEST_STATES=$${DIFFTEST_STATES:-2000} $(GO) test -run '^(TestOneVerdict|TestCoverage)$$' -count 1 -timeout 20m -v ./internal/difftest

verdicts-race: # the detector makes it three times as long: some states, and the tests of changes
	DIFFTEST_STATES=120 $(GO) test -race -skip '^TestCoverage$$' -timeout 20m ./internal/difftest

soak-policy: ## the same, with fresh seeds, for MINUTES=30
	SOAK_MINUTES=$${MINUTES:-30} $(GO) test -run '^TestSoak$$' -count 1 -timeout 0 -v ./internal/difftest

faults: ## plants mistakes in the sources, one at a time; the differential test must find each in a minute: RUN=REGEXP
	$(GO) run ./internal/difftest/faults -run '$(RUN)'

lab: ## lab scripts: nodes, pods and policies on real kernel objects
	$(GO) test -race -timeout 20m ./lab

bench: build ## the figures beside their floors, as root, 5 min: ROWS=cni,policy BENCH=long BENCHFLAGS='-o json -disk DIR'
	CGO_ENABLED=0 $(GO) build -o $(BIN)/bench ./internal/bench
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(BIN)/bench-empty ./internal/bench/empty
	$(BIN)/bench -bin $(BIN) $(BENCHFLAGS)

vm: ## tests that want another kernel, in a virtual machine: the kernel's own ipip (amd64, root and apt)
	hack/vm

microbench: ## Go benchmarks of the machines in the middle and of the drivers
	$(GO) test -run '^$$' -bench . -benchtime 200ms ./selector ./labelindex ./calc ./ipam ./nft ./route

##@ Machine
.PHONY: tools clean help
tools: ## install what is missing, by apt (needs root)
	@hack/tools

clean: ## remove what the targets built
	rm -rf $(BIN)

help:
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
