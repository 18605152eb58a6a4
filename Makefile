# One command per task; `make help` lists them. Needs make and Python >= 3.11 with venv, and nothing else.

# The interpreter for new environments: `make PYTHON=python3.12 ...` chooses, otherwise the first that is new enough.
ifndef PYTHON
PYTHON = $(shell for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
endif

BIN := .venv/bin
INSTALLED := .venv/.installed
GENERATOR := .venv-proto/.installed
PIP_INSTALL := pip install --quiet --disable-pip-version-check

# What sessions that compute by JAX do, but for what needs several devices.
ON_JAX = tests/xla tests/e2e/test_executors.py tests/e2e/test_groups.py tests/rpc/test_executors.py \
	tests/sessions/training/test_device_*.py tests/sessions/training/test_cohort_*.py tests/sessions/training/test_lost_states.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test faults fuzz soak check format proto serve bench bench-quick accelerator conformance docs capacity cluster image docker-verify clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Train a network on handwritten digits through a server of its own
	$(BIN)/backwire demo

test: $(INSTALLED) ## Run all tests, in parallel; ARGS="-k name" narrows them
	$(BIN)/pytest -n auto --dist worksteal $(ARGS)

faults: $(INSTALLED) ## Kill, cut off and starve servers in thousands of rounds; ARGS="--rounds 100 --seed 7" chooses
	$(BIN)/python -m tests.faults $(ARGS)

fuzz: $(INSTALLED) ## Feed the server hostile bytes, guided by coverage with atheris; ARGS="--seconds 600 --target graph" chooses
	$(BIN)/python -m tests.fuzz $(ARGS)

soak: $(INSTALLED) ## Soak a server with clients that cancel, disconnect and are killed; ARGS="--minutes 60" chooses
	$(BIN)/python -m tests.soak $(ARGS)

check: $(INSTALLED) $(GENERATOR) ## Check format, lint, types, generated code and the contract's style
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	.venv-proto/bin/python proto/generate.py --check
	$(BIN)/buf lint

format: $(INSTALLED) ## Format the code and fix what the linter can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

proto: $(GENERATOR) ## Generate the Python modules of the contract from proto/**/*.proto
	.venv-proto/bin/python proto/generate.py

serve: $(INSTALLED) ## Start a server on 127.0.0.1:50051; ARGS="--help" shows its options
	$(BIN)/backwire serve $(ARGS)

bench: $(INSTALLED) ## Measure training beside PyTorch and JAX where they are installed; writes out/bench.json and .png
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-quick: $(INSTALLED) ## The same with fewer models and rounds, in under two minutes
	$(BIN)/python -m tests.benchmarks --quick $(ARGS)

accelerator: $(INSTALLED) ## Test and measure the JAX executor on the accelerator that JAX finds; writes out/accelerator.json
	$(BIN)/python -c 'import jax; print("JAX", jax.__version__, "on", *jax.devices())'
	XLA_PYTHON_CLIENT_PREALLOCATE=false $(BIN)/pytest -n auto --dist worksteal $(ON_JAX)
	JAX_PLATFORMS= $(BIN)/python -m tests.benchmarks --only jax,groups --output out/accelerator.json $(ARGS)

conformance: $(INSTALLED) ## Run ONNX's test suites and write docs/conformance.md
	$(BIN)/python -m tests.engine.conformance docs/conformance.md

docs: $(INSTALLED) ## Build the documentation as a site, out/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file docs/site/mkdocs.yaml

capacity: $(INSTALLED) ## Simulate up to a million sessions on a thousand nodes; ARGS="--costs out/bench.json" takes your figures
	$(BIN)/python -m tests.capacity $(ARGS)

cluster: $(INSTALLED) ## Kill replicas over one directory while sessions train; ARGS="--kills 1000 --sessions 6" chooses
	$(BIN)/python -m tests.cluster $(ARGS)

image: ## Build the container image backwire:latest; BUILD="podman build" chooses another builder
	docker/verify --build-only

docker-verify: $(INSTALLED) ## Build the image, run it hardened, and train through it from outside
	docker/verify

clean: ## Remove environments, caches and build output
	rm -rf .venv .venv-* build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 with venv found; install one (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/$(PIP_INSTALL) --editable '.[dev]' $(ALSO)
	@touch $@

# Generated code must come from these exact versions: newer ones make code that the lowest allowed runtimes refuse.
$(GENERATOR): proto/generate.py
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 with venv found; install one (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/$(PIP_INSTALL) $$($(PYTHON) proto/generate.py --requirements)
	@touch $@
