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
LAB = cd e2e && ../$(BIN)/python -m lab


.PHONY: help demo test lint format unit integration browser fuzz e2e chaos mutants up down status images locks bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## A cluster, the chart and a real task: align reads, with its result and the URL to try next
	@cd e2e && ../$(BIN)/python -m demo

test: $(READY) ## Everything: unit, integration (Postgres, MinIO, Keycloak), browser and end-to-end on a kind cluster
	@$(BIN)/python e2e/run_tests.py

unit: $(READY) ## Tests that need no container
	@$(BIN)/python e2e/run_tests.py unit

integration: $(READY) ## Tests on a real Postgres, MinIO and Keycloak
	@$(BIN)/python e2e/run_tests.py integration

browser: $(READY) ## The page of the API in Chromium, which is installed where there is none
	@$(BIN)/python e2e/run_tests.py browser

fuzz: $(READY) ## New random requests and tasks, EXAMPLES=1000 of each test that makes some
	@POIESIS_FUZZ_EXAMPLES=$(or $(EXAMPLES),1000) $(BIN)/python e2e/run_tests.py integration -- -k fuzz

e2e: $(READY) ## Stories on the kind cluster (KUBERNETES=1.29 or 1.37: on another Kubernetes, in a cluster of its own)
	@$(BIN)/python e2e/run_tests.py e2e seconds

mutants: $(READY) ## See each row of docs/failures.md fail when what makes it right is taken away (NAMES="…" for some)
	@cd e2e && ../$(BIN)/python -m failures.mutants $(NAMES)

lint: $(READY) ## Formatting, style, types, import directions, dead code, the chart
	@$(BIN)/python e2e/lint.py

format: $(READY) ## Format the code
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format .

chaos: $(READY) ## Kill parts at random while tasks run (SEED=… SECONDS=600 TASKS=60); see docs/chaos.md
	@cd e2e && ../$(BIN)/python -m chaos \
		$(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(TASKS),--tasks $(TASKS))

up: $(READY) ## Bring the lab's cluster up (or reuse it)
	@$(LAB) up

down: $(READY) ## Remove the cluster and everything the lab started
	@$(LAB) down

status: $(READY) ## Say what the lab runs
	@$(LAB) status

images: $(READY) ## Build all images (PLATFORM=linux/arm64 where docker can)
	@$(LAB) images $(if $(PLATFORM),--platform $(PLATFORM))

bench: $(READY) ## Measure a task beside a hand-written Job, and what a task costs
	@$(BIN)/python bench/latency.py && $(BIN)/python bench/footprint.py

locks: $(READY) ## Renew every requirements lock (hashes, no host)
	@$(BIN)/python e2e/locks.py

clean: ## Remove the virtual environment and build products
	rm -rf $(VENV) services/helper/build

$(READY): requirements-dev.lock e2e/bootstrap.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) bash e2e/bootstrap.sh
