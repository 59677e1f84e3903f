# `make demo` and `make test` do everything on a fresh machine. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PLATFORM ?=
KUBERNETES ?= $(POIESIS_KUBERNETES)
export POIESIS_KUBERNETES := $(KUBERNETES)
CHECK = $(BIN)/python -m poiesis_tools.check
TEST = $(BIN)/python -m poiesis_tools.testing
LAB = $(BIN)/python -m poiesis_lab

.PHONY: help demo check test test-all lint format unit integration browser fuzz core stories chaos mutants up down status images docs schema locks bench release licenses audit clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## A cluster, the chart and a real task: align reads, with its result and the URL to try next
	@$(BIN)/python -m poiesis_e2e.demo

check: $(READY) ## Minutes, no container: format, lint, types, imports, chart, unit tests (MEMBER=services/trec: one alone)
	@$(CHECK) $(MEMBER)

test: $(READY) ## check, integration tests, browser, and the core stories on a kind cluster
	@$(CHECK) --static && $(TEST) test

test-all: $(READY) ## Everything, before a release and every night (KUBERNETES=1.29 or 1.37: on another Kubernetes)
	@$(CHECK) --static && $(TEST) test-all

lint: $(READY) ## The static part of check
	@$(CHECK) --static

format: $(READY) ## Format the code
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format . ; git ls-files 'services/helper/**/*.[ch]' | xargs $(BIN)/clang-format -i

unit: $(READY) ## Tests that need no container
	@$(TEST) unit

integration: $(READY) ## Tests on a real Postgres, MinIO and Keycloak
	@$(TEST) integration

browser: $(READY) ## The API's web page in Chromium, which is installed where it is missing
	@$(TEST) browser

core: $(READY) ## The core stories on the kind cluster
	@$(TEST) core

stories: $(READY) ## All stories on the kind cluster (KUBERNETES=1.29 or 1.37: in a cluster of its own)
	@$(TEST) stories seconds

fuzz: $(READY) ## New random requests and tasks, EXAMPLES=1000 per test
	@POIESIS_FUZZ_EXAMPLES=$(or $(EXAMPLES),1000) $(TEST) integration -- -k fuzz

mutants: $(READY) ## Prove that each row of docs/reference/failures.md fails when its handling is removed (NAMES="…" for some)
	@$(BIN)/python -m poiesis_e2e.failures.mutants $(NAMES)

chaos: $(READY) ## Kill services at random while tasks run (SEED=… SECONDS=600 TASKS=60); see docs/explanation/chaos.md
	@$(BIN)/python -m poiesis_e2e.chaos \
		$(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(TASKS),--tasks $(TASKS))

up: $(READY) ## Bring the lab's cluster up, or reuse it
	@$(LAB) up

down: $(READY) ## Remove the cluster and everything the lab started
	@$(LAB) down

status: $(READY) ## Show what the lab runs
	@$(LAB) status

images: $(READY) ## Build all images (PLATFORM=linux/arm64 where docker can)
	@$(LAB) images $(if $(PLATFORM),--platform $(PLATFORM))

bench: $(READY) ## Measure speed and scale beside their floors, with plots (ROWS= QUEUED= PODS= RUNS= RCLONE= ONLY="rows queue")
	@$(BIN)/python -m poiesis_bench $(if $(ROWS),--rows $(ROWS)) $(if $(QUEUED),--queued $(QUEUED)) $(if $(PODS),--pods $(PODS)) \
		$(if $(RUNS),--runs $(RUNS)) $(if $(RCLONE),--rclone $(RCLONE)) $(if $(ONLY),--only $(ONLY))

docs: $(READY) ## Build the documentation site in build/docs/html, and check all links
	@$(BIN)/python -m poiesis_tools.docs

schema: $(READY) ## Write the chart's values.yaml and schema, their reference page, and the api's example of a configuration
	@$(BIN)/python -m poiesis_tools.values

locks: $(READY) ## Renew every requirements lock (hashes, no host)
	@$(BIN)/python -m poiesis_tools.locks

release: $(READY) ## Build everything a release has in build/release (REGISTRY=host/path, PLATFORM=linux/amd64: or fail)
	@$(BIN)/python -m poiesis_tools.release build \
		$(if $(REGISTRY),--registry $(REGISTRY)) $(if $(PLATFORM),--platform $(PLATFORM))

licenses: $(READY) ## List the licenses of all dependencies, and compare them with the allowed ones
	@$(BIN)/python -m poiesis_tools.release.licenses

audit: $(READY) ## Search the locks for published vulnerabilities (REQUIRED=1: fail where the database does not answer)
	@$(BIN)/python -m poiesis_tools.release.audit $(if $(REQUIRED),--required)

clean: ## Remove the virtual environment and build products
	rm -rf $(VENV) build services/helper/build

$(READY): requirements-dev.lock tools/bootstrap.sh VERSION $(wildcard */pyproject.toml packages/*/pyproject.toml services/*/pyproject.toml)
	@PYTHON=$(PYTHON) VENV=$(VENV) bash tools/bootstrap.sh
