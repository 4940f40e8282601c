# Everything a person or CI does here is one of these targets. `make` alone lists them.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The binary needs no C library. The race detector does, and asks for it where it is used.
export CGO_ENABLED := 0

# What `serversync version` says. The date is the commit's, so that one commit is always built alike.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
DATE ?= $(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)
LDFLAGS = -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)
# For `make run`: flags of `serversync demo`.
ARGS ?=
# For `make test`: what to test, more flags of `go test`, and how long one package may take.
PKG ?= ./...
TESTFLAGS ?=
TEST_TIMEOUT ?= 20m
# For `make bench`, `make profile`, `make microbench` and `make fuzz`: which, and for how long each.
BENCH ?= .
BENCHTIME ?= 1s
FUZZ ?= .
FUZZTIME ?= 20s
# For `make bench`, `make profile`, `make chaos`, `make cluster` and `make powercut`: how many rounds; empty: 5, 1, 20,
# 15 and 5. For the last three: which; empty: others each time.
ROUNDS ?=
SEED ?=

# For `make cross`: what the service is released for, as .goreleaser.yaml has it.
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

LINT := go tool -modfile=tools.mod golangci-lint

##@ Use

.PHONY: run
run: need-postgresql build ## Start everything: PostgreSQL, NATS, a simulated VirtFusion, the service
	@exec bin/serversync demo $(ARGS)

.PHONY: build
build: ## Build bin/serversync
	go build -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/serversync ./cmd/serversync

.PHONY: dist
dist: ## Make the release's archive for this machine, in dist/
	@LDFLAGS='$(LDFLAGS)' scripts/dist.sh '$(VERSION)' "$$(go env GOOS)" "$$(go env GOARCH)"

##@ Check

.PHONY: test
test: need-postgresql need-c-compiler need-chromium need-axe vet ## Run all tests under the race detector, in random order
	@scripts/go-test.sh -vet=off -shuffle=on -timeout=$(TEST_TIMEOUT) $(TESTFLAGS) $(PKG)

.PHONY: vet
vet: ## Run go vet
	go vet $(PKG)

.PHONY: cross
cross: ## Build for Linux and macOS on both processors, and vet everything for macOS
	@for platform in $(PLATFORMS); do \
		echo "go build for $$platform: bin/cross/serversync-$${platform%/*}-$${platform#*/}"; \
		GOOS=$${platform%/*} GOARCH=$${platform#*/} go build -buildvcs=false -ldflags '$(LDFLAGS)' \
			-o bin/cross/serversync-$${platform%/*}-$${platform#*/} ./cmd/serversync || exit 1; \
	done
	GOOS=darwin GOARCH=arm64 go vet ./...

.PHONY: lint
lint: tidy-check ## Check modules, formatting, code, import rules and shell scripts
	$(LINT) fmt --diff
	$(LINT) run
	scripts/check-import-rules.sh
	scripts/check-shell.sh

.PHONY: check-deploy
check-deploy: ## Hold deploy/ against systemd, Kubernetes and Compose
	@scripts/check-deploy.sh

.PHONY: cover
cover: need-postgresql need-chromium need-axe ## Measure test coverage over all packages; HTML in cover/index.html
	@mkdir -p cover
	go test -vet=off -timeout=$(TEST_TIMEOUT) -coverpkg=./... -coverprofile=cover/profile.out $(TESTFLAGS) ./...
	@go tool cover -html=cover/profile.out -o cover/index.html
	@go tool cover -func=cover/profile.out | awk '$$1 == "total:" { print "total coverage: " $$NF " (cover/index.html)" }'

.PHONY: bench
bench: need-postgresql build ## Prove the speed, in docs/performance.md (BENCH=regexp of sections, ROUNDS=5)
	@go build -buildvcs=false -o bin/bench ./cmd/bench
	@exec bin/bench -only '$(BENCH)' -rounds $(or $(ROUNDS),5) -write docs/performance.md -command '$(strip make bench $(if $(filter-out .,$(BENCH)),BENCH=$(BENCH)) $(if $(ROUNDS),ROUNDS=$(ROUNDS)))'

.PHONY: profile
profile: need-postgresql build ## The same with CPU profiles, in profiles/ (BENCH=regexp of sections, ROUNDS=1)
	@go build -buildvcs=false -o bin/bench ./cmd/bench
	@exec bin/bench -only '$(BENCH)' -rounds $(or $(ROUNDS),1) -cpuprofile profiles

.PHONY: microbench
microbench: need-postgresql ## Run Go's own benchmarks (BENCH=regexp, BENCHTIME=1s)
	go test -vet=off -run='^$$' -bench='$(BENCH)' -benchtime=$(BENCHTIME) -benchmem $(PKG)

.PHONY: fuzz
fuzz: ## Run each fuzz test for a while (FUZZ=regexp, FUZZTIME=20s)
	@scripts/fuzz.sh '$(FUZZ)' '$(FUZZTIME)'

.PHONY: chaos
chaos: need-postgresql build ## Crash the service again and again and check the books (ROUNDS=20, SEED=n)
	@go build -buildvcs=false -o bin/chaos ./cmd/chaos
	@exec bin/chaos -rounds $(or $(ROUNDS),20) $(if $(SEED),-seed $(SEED))

.PHONY: cluster
cluster: need-postgresql build ## Lose machines of a cluster again and again and check the books (ROUNDS=15, SEED=n)
	@go build -buildvcs=false -o bin/nats-server github.com/nats-io/nats-server/v2
	@go build -buildvcs=false -o bin/cluster ./cmd/cluster
	@exec bin/cluster -rounds $(or $(ROUNDS),15) $(if $(SEED),-seed $(SEED))

.PHONY: powercut
powercut: build ## Cut the power of a virtual machine with the service and check its stream (ROUNDS=5, SEED=n)
	@go build -buildvcs=false -o bin/powercut ./cmd/powercut
	@scripts/powercut-vm.sh bin/powercut-vm bin/serversync bin/powercut
	@exec bin/powercut -vm bin/powercut-vm -rounds $(or $(ROUNDS),5) $(if $(SEED),-seed $(SEED))

.PHONY: guide
guide: need-bare-machine ## Follow docs/integration.md to the letter on a bare machine, and try the other guides' commands
	@go build -buildvcs=false -o bin/guide ./cmd/guide
	@exec bin/guide -archive "$$(LDFLAGS='$(LDFLAGS)' scripts/dist.sh '$(VERSION)' linux "$$(go env GOARCH)")" $(patsubst %,docs/%.md,operating maintenance troubleshooting watchdog first-charge virtfusion backup deploy)

##@ Maintain

.PHONY: fmt
fmt: ## Format the code
	$(LINT) fmt

.PHONY: tidy
tidy: ## Bring go.mod and tools.mod up to date with the code
	go mod tidy
	scripts/tidy-tools.sh

.PHONY: tidy-check
tidy-check:
	go mod tidy -diff
	scripts/tidy-tools.sh -diff

.PHONY: screens
screens: need-postgresql need-chromium need-axe ## Write screenshots of the pages to docs/screens
	SCREENS='$(CURDIR)/docs/screens' go test -vet=off -timeout=$(TEST_TIMEOUT) -run='^TestScreens' -count=1 $(TESTFLAGS) ./cmd/serversync

.PHONY: clean
clean: ## Remove what was built (data/ stays)
	rm -rf bin cover profiles

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# What a target needs from the system is found, or installed, by a script of its own that says what it does.

.PHONY: need-postgresql
need-postgresql:
	@scripts/install-postgresql.sh

.PHONY: need-c-compiler
need-c-compiler:
	@scripts/install-c-compiler.sh

.PHONY: need-bare-machine
need-bare-machine:
	@scripts/install-bare-machine.sh

.PHONY: need-chromium
need-chromium:
	@scripts/install-chromium.sh

.PHONY: need-axe
need-axe:
	@scripts/install-axe.sh
