SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -linkmode external -extldflags -static
STATIC := CGO_ENABLED=1 go build -trimpath -tags netgo,osusergo -ldflags '$(LDFLAGS)'

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## one static binary: bin/afalg-policy
	scripts/install build
	$(STATIC) -o bin/afalg-policy ./cmd/afalg-policy

.PHONY: demo
demo: build ## every target of a shipped policy, and a container with and without it
	scripts/install demo
	scripts/demo

.PHONY: test
test: build ## everything, on real kernels too (less than 20 minutes on 2 cores)
	scripts/install test
	go run ./scripts/check

.PHONY: test-fast
test-fast: ## the tests that need no virtual machine (about a minute)
	scripts/install build
	go run ./scripts/check -fast

.PHONY: lint
lint: ## formatting, vet, staticcheck, known vulnerabilities, shell scripts
	scripts/install build lint
	go run ./scripts/check -lint

.PHONY: generate
generate: ## rewrite the files that are made from the code
	scripts/install build
	go generate ./...

.PHONY: bench
bench: ## what the filters, the generator and the broker cost
	scripts/install build
	go run ./bench
	go run ./bench -broker
	go run ./bench -broker -busy

.PHONY: clean
clean: ## remove what the other targets made here
	rm -rf bin out
