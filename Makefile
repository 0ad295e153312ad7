# The chores, as a table of contents; what is longer than two lines stands in scripts/.
SHELL := /bin/bash
.DEFAULT_GOAL := help

-include tests/cluster/cluster.mk

.PHONY: help check test test-access test-attacks test-clients fuzz test-engine demo demo-image demo-down bench generate images deny cluster-tools clean bench-guard bench-http bench-policy soak

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile tests/cluster/cluster.mk | sed -E 's/:.*## /\t/' | awk -F'\t' '{ printf "  make %-17s %s\n", $$1, $$2 }'

check: ## the fast loop: format, lints, pure tests, each feature set alone, licences; no cluster
	@scripts/check.sh

test: ## everything: check, chart, a real API server, real clients, a real node; sets up what it needs and ends it (KEEP=1: leaves it up)
	@scripts/test.sh

fuzz: ## any bytes to what the guard reads: ten minutes a target (FUZZ_SECONDS=n, TARGET=name); test has a short one
	@scripts/fuzz.sh

test-engine: ## the test cluster's NetworkPolicy engine against an independent suite (root; long; not part of test)
	@tests/cluster/test-engine.sh

demo: ## the story on a real Kubernetes: an AI service is attacked, with and without Remit (CLUSTER=embedded|kind|current)
	@scripts/demo.sh

demo-image: ## the demo's image as target/images/demo.tar, to be pushed for CLUSTER=current (IMAGE=name:tag)
	@scripts/demo/image.sh

demo-down: ## clear away what the demo made
	@scripts/demo-down.sh

test-access: ## effective access beside independent implementations alone: Cyclonus' matcher, the API server
	@scripts/test-access.sh

test-attacks: ## the attack suite alone, on the embedded cluster: one line for each row of the list of threats
	@scripts/test-attacks.sh

test-clients: ## curl, git, Python, Node, Java, Go, gRPC and WebSockets through the guard, unmodified: a table (root; WAYS="direct redirect ...")
	@tests/clients/run.sh $(WAYS)

bench: ## the benchmark tables, on the API tier
	@scripts/bench.sh

bench-guard: ## the guard beside HAProxy and Envoy (root; installs both; BASE=PATH: another build as well)
	@scripts/bench-guard.sh

bench-http: ## the guard beside nginx, HAProxy and Envoy as they pass HTTP on (root; installs them; BASE=PATH: another build as well)
	@scripts/bench-http.sh

bench-policy: ## from the change of a scope to 1, 10 and 100 guards of real pods (root; the node tier)
	@scripts/bench-policy.sh

soak: ## the guard under load for half an hour, with upstreams that restart and clients that break off (root; SOAK_SECONDS=n)
	@scripts/soak.sh

generate: ## write the files made from the code: CRDs, the chart's copy, reference pages, the plugin's expected output, seeds
	REMIT_GENERATE=1 cargo test --quiet --no-default-features --features cli --test it -- generated:: examples_render
	scripts/fuzz.sh seeds

images: ## the images as target/images/{operator,guard}.tar, names remit.test/{operator,guard}:dev (PROFILE=release, OPERATOR_IMAGE=name:tag, GUARD_IMAGE=name:tag)
	@IMAGE=$(OPERATOR_IMAGE) scripts/images.sh operator
	@IMAGE=$(GUARD_IMAGE) scripts/images.sh guard

deny: ## licences, sources and banned crates of the dependencies
	@scripts/deny.sh

cluster-tools: ## only build the test cluster's kubectl and helm, into target/cluster/bin
	@tests/cluster/build.sh link "$(CURDIR)/target/cluster/bin" api helm3

clean: ## remove what was built here; caches of the user stay (cluster-down first)
	cargo clean
