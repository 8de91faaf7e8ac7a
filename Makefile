SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VERSION := $(shell scripts/version)
ifeq ($(VERSION),)
$(error scripts/version names no version: see its message above)
endif
# Of the commit: what packages contain has no other time.
DATE = $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || sed -n 's/^date //p' .archived))
LDFLAGS := -s -w -X main.version=$(VERSION) -linkmode external -extldflags -static
STATIC := CGO_ENABLED=1 go build -trimpath -tags netgo,osusergo -ldflags '$(LDFLAGS)'

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## one static binary: bin/afalg-policy
	scripts/install build
	$(STATIC) -o bin/afalg-policy ./cmd/afalg-policy

.PHONY: packages
packages: ## deb, rpm and tarball for amd64 and arm64, and what goes with them: out/packages
	scripts/install build packages
	rm -rf out/packages
	go -C packaging run . -tree .. -version "$(VERSION)" -date "$(DATE)" -o "$(CURDIR)/out/packages"

.PHONY: demo
demo: build ## every target of a shipped policy, and a container with and without it
	scripts/install demo
	scripts/demo

.PHONY: test
test: build ## the tests on this machine, in boxes, and on Debian's kernels
	scripts/install lint test vm
	go run ./scripts/check $@

.PHONY: test-all
test-all: build ## what takes long besides: attacks, mutants, faults, each platform whole
	scripts/install test vm arm64 bpf
	go run ./scripts/check $@

.PHONY: test-wide
test-wide: build ## what test-all shows, on the older kernel and for more engines
	scripts/install test vm
	go run ./scripts/check $@

.PHONY: test-cluster
test-cluster: build ## the chart, and a cluster of Kubernetes, which is built once: minutes
	scripts/install test kubernetes
	go run ./scripts/check $@

.PHONY: test-release
test-release: build ## all packages, built twice in two places, and installed
	scripts/install test packages
	go run ./scripts/check $@

.PHONY: test-fast
test-fast: ## the quick tests on this machine
	scripts/install build test
	go run ./scripts/check $@

.PHONY: lint
lint: ## formatting, vet, staticcheck, known vulnerabilities, shell scripts
	scripts/install build lint
	go run ./scripts/check $@

.PHONY: box
box: build ## a shell in a throw-away machine of namespaces
	scripts/install test
	go run ./internal/testing/shell box

KERNEL := 6.12

.PHONY: vm
vm: build ## a shell in an emulated machine: make vm KERNEL=6.12
	scripts/install test vm
	go run ./internal/testing/shell vm $(KERNEL)

.PHONY: generate
generate: ## rewrite the files that are made from the code
	scripts/install build bpf
	go generate ./...

.PHONY: man
man: ## manual pages and completions, in out/
	scripts/install build
	go test -count=1 ./cmd/afalg-policy -run '^TestManual$$' -update

.PHONY: bench
bench: ## what the filters, the generator, the broker and the kernel half cost
	scripts/install build vm
	go run ./bench
	go run ./bench -broker
	go run ./bench -broker -busy
	go test -tags vm -run '^$$' -bench KernelHalf -benchtime 1x -timeout 2h -v ./internal/vmtest

.PHONY: clean
clean: ## remove what the other targets made here
	rm -rf bin out
