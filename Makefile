# What a developer or CI calls. Every target works on a fresh machine with Rust, Go and the tools that it names when
# they are missing. Caches live outside the checkout, under $(HEADGATE_CACHE).

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run build check fmt clippy unit gen drift chart deny scripts test image binary e2e e2e-up e2e-down \
    bench bench-micro bench-scale instructions pgo

export HEADGATE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/headgate
export CARGO_TARGET_DIR ?= $(CURDIR)/target

# The profile of `make image`: release (fat LTO, a quarter of an hour) or fast (minutes).
PROFILE ?= release
# What a release doesn't keep; none: it has its symbols, for profilers.
STRIP := symbols
IMAGE := headgate.dev/headgate:dev
ARCHIVE := target/image/headgate.tar
TARGET := $(shell uname -m)-unknown-linux-gnu
BINARY = $(CARGO_TARGET_DIR)/$(TARGET)/$(PROFILE)/headgate

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 12

run: ## Start the gateway on loopback with examples/quickstart
	@cargo build --quiet --profile fast -p headgate
	@hack/run.sh "$(CARGO_TARGET_DIR)/fast/headgate"

check: fmt clippy unit drift chart deny scripts ## Everything that needs no cluster

test: check ## check, then the image, then a cluster with scenarios and conformance
	$(MAKE) image PROFILE=fast
	e2e/test.sh

fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --workspace --all-targets --locked -- -D warnings

unit: ## Tests of all crates
	hack/redis.sh
	cargo test --workspace --locked

gen: ## Write generated files anew: CRDs of the chart, Gateway API types, schemas, docs/conformance.md
	hack/crds.sh write
	hack/gen.sh
	hack/conformance-page.sh

drift: ## Fail where generated files aren't what `make gen` writes
	hack/crds.sh check
	hack/gen.sh --check
	hack/conformance-page.sh --check

chart: ## Lint and render the chart
	cargo build --quiet --locked -p headgate
	HEADGATE="$(CARGO_TARGET_DIR)/debug/headgate" hack/chart.sh

deny: ## Licences, sources, duplicates and known vulnerabilities of the dependencies
	hack/deny.sh

scripts: ## Lint the shell scripts
	hack/scripts.sh

# Static, position-independent: it runs in an empty root file system; its relocations are packed, which is 1.6 MB. Naming
# the target keeps the flags away from build scripts and proc macros, which can't be static. A release knows what is hot.
binary:
	flags=$$(cat hack/static.flags); link=(); \
	if [ $(PROFILE) = release ]; then flags+=" $$(hack/pgo.sh flags)"; read -ra link <<< "$$(hack/pgo.sh link) -C strip=$(STRIP)"; fi; \
	CARGO_TARGET_$(shell echo $(TARGET) | tr a-z- A-Z_)_RUSTFLAGS=$$flags \
	    cargo rustc --locked --profile $(PROFILE) --target $(TARGET) -p headgate --bin headgate -- "$${link[@]}"
	hack/static.sh "$(BINARY)"
	if [ $(PROFILE) = release ]; then hack/pgo.sh check "$(BINARY)"; fi

image: binary ## The container image, as an archive in target/image/headgate.tar
	rm -rf target/image/context && mkdir -p target/image/context
	cp "$(BINARY)" target/image/context/headgate
	hack/image.sh $(IMAGE) Dockerfile target/image/context $(ARCHIVE)

e2e: ## Scenarios and conformance in a kind cluster, which is left running
	$(MAKE) image PROFILE=fast
	e2e/test.sh

e2e-up: ## Start a kind cluster with Headgate installed, and leave it running
	$(MAKE) image PROFILE=fast
	e2e/up.sh

e2e-down: ## Stop it
	e2e/down.sh

bench: ## Headgate, nginx, HAProxy and Envoy side by side
	bench/run.sh

bench-micro: ## Finding routes, compiling and translating, with 1 to 10,000 routes
	cargo bench --locked --profile fast -p headgate-proxy --bench router
	cargo bench --locked --profile fast -p headgate-controller --bench translate

bench-scale: ## Beside a real API server, with 1,000 to 20,000 routes
	bench/scale.sh

instructions: ## Instructions and system calls of a request, against what is recorded
	bench/instructions.sh

pgo: ## Measure anew what the release build is optimised by
	hack/pgo.sh train
