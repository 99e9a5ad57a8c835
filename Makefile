# `make` lists the targets. Every target does its own set-up; nothing is installed outside of .venv and the caches.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install demo up down kafka test test-offline test-process test-embedded test-kafka test-e2e test-compose test-browser \
        check reference bench bench-patterns bench-gateway chaos fuzz-gateway lock clean

PY := .venv/bin/python
STAMP := .venv/.installed
PORT ?= 9092
PIP := $(PY) -m pip --disable-pip-version-check -q

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv with everything that is needed, from the lock file; instant when nothing changed

# Of several interpreters, one whose compiler was let optimise across the whole program: built from source without
# --enable-optimizations, and as a shared library, CPython needs up to twice the CPU (docs/operations.md).
define is_fast
import ensurepip, pathlib, sysconfig
configured = sysconfig.get_config_var("CONFIG_ARGS") or ""
shared = "libpython3" in pathlib.Path("/proc/self/maps").read_text()
raise SystemExit("--enable-optimizations" not in configured and shared)
endef
export is_fast

$(STAMP): requirements.lock pyproject.toml
	@set -e; \
	usable() { command -v "$$1" >/dev/null 2>&1 && \
	  "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }; \
	fast() { usable "$$1" && "$$1" -c "$$is_fast" >/dev/null 2>&1; }; \
	if ! usable .venv/bin/python; then \
	  found=; \
	  for wanted in fast usable; do \
	    for candidate in $${PYTHON:-python3 python3.12 python3.11 python3.13 python3.14 python /usr/bin/python3}; do \
	      if $$wanted "$$candidate"; then found=$$candidate; break 2; fi; \
	    done; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "install: no Python 3.11 or newer found. Install one, or name it: make install PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  rm -rf .venv; \
	  echo "install: creating .venv with $$found"; \
	  "$$found" -m venv .venv || { rm -rf .venv; \
	    echo "install: $$found cannot create a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }; \
	fi; \
	echo "install: fetching the packages of requirements.lock (once, about a minute)"; \
	$(PIP) install --require-hashes -r requirements.lock; \
	$(PIP) install --no-deps --no-index --no-build-isolation -e .; \
	touch $(STAMP)

demo: $(STAMP) ## the main job from end to end on this machine, no account, no Docker, no Java; ends by itself
	@.venv/bin/penstock demo

up: ## build and start the stack of docker-compose.yml, and wait until it is healthy
	docker compose up -d --build --wait

down: ## stop that stack and remove its data
	docker compose down -v --remove-orphans

kafka: $(STAMP) ## a real Kafka broker in the foreground on localhost:9092 (PORT=...); needs Java and Maven
	@$(PY) -m tests.kafkalab --port $(PORT)

test: $(STAMP) ## all tests that this machine can run; the last lines name what was skipped and why
	@$(PY) -m tests.groups

test-offline: $(STAMP) ## tests without any broker, some two minutes
	@$(PY) -m tests.groups offline

test-process: $(STAMP) ## tests that start programs and need no broker
	@$(PY) -m tests.groups process

test-embedded: $(STAMP) ## tests on the embedded broker
	@$(PY) -m tests.groups embedded

test-kafka: $(STAMP) ## tests on real Kafka: PENSTOCK_TEST_KAFKA=host:port, else a container, else the jars
	@$(PY) -m tests.groups kafka

test-e2e: $(STAMP) ## whole programs together, and the commands of the README
	@$(PY) -m tests.groups e2e

test-compose: $(STAMP) ## the stack of docker-compose.yml; needs a Docker engine
	@$(PY) -m tests.groups compose

test-browser: $(STAMP) ## the pages in a real Chromium, on real Kafka
	@$(PY) -m tests.groups browser

check: $(STAMP) ## formatting, lint, types, import rules, spelling, architecture, generated pages
	@$(PY) -m tests.checks

reference: $(STAMP) ## generate the reference pages and .env.example anew
	@$(PY) -m gateways.cli.reference

bench: $(STAMP) ## the benchmarks; each prints a table and writes build/figures/<name>.json
	@$(PY) -m bench

bench-patterns: $(STAMP) ## the integration patterns, measured; needs Java and Maven
	@$(PY) -m bench.patterns

bench-gateway: $(STAMP) ## the gateway: CPU per webhook beside controls, overload, 100 kills; needs Java and Maven
	@$(PY) -m bench.gateway

chaos: $(STAMP) ## faults by plan on real Kafka (SEED=...), and the ledger of what came out; needs Java and Maven
	@$(PY) -m tests.chaos $(if $(SEED),--seed $(SEED))

fuzz-gateway: $(STAMP) ## mutated requests (N=50000) against a gateway process (SEED=...), and the ledger of the answers
	@$(PY) -m tests.hostile $(if $(SEED),--seed $(SEED)) $(if $(N),--n $(N))

lock: $(STAMP) ## resolve the dependencies anew; afterwards run the tests
	@$(PY) -m tests.lock

clean: ## remove what builds and tests left, and .venv
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
