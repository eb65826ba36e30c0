# Updraft's commands. `make` alone lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
ROLES := step ray-cpu ray-gpu
TARGETS := dev dev/train production production/train

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast benchmark-models peers lint format imports ui images validate-manifests clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make the virtual environment and install pinned dependencies

# torch first: the resolver then keeps that build, whatever else asks for torch.
$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on PATH; install Python 3.11, or say make PYTHON=/path/to/python3.11"; exit 5; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install ## Run the whole loop twice on the simulated campaign, and print what it earned
	$(BIN)/updraft demo

test: install ## Run every test
	$(BIN)/pytest

test-fast: install ## Run the tests that take seconds
	$(BIN)/pytest -m "not slow"

benchmark-models: install ## Measure the models into docs/benchmarks.md, the short forms; FULL=1: the long ones
	$(BIN)/python -m benchmarks.models $(if $(FULL),--full)

# causalml asks for xgboost, and that for CUDA; its X-learner needs neither, but its modules import xgboost.
peers: install ## Add causalml, a peer of the models' benchmarks, without the CUDA that it asks for
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps causalml==0.18.0 seaborn==0.13.2 xgboost-cpu==3.2.0

lint: install ## Formatting, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

ui: install ## Start MLflow and Evidently and print their links
	$(BIN)/updraft ui

# The commit's time stands in for the build's. Only BuildKit reads Dockerfile.dockerignore; without it all of the folder is sent.
images: ## Build the container images of every role
	@release=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml); epoch=$$(git log -1 --format=%ct); \
	for role in $(ROLES); do \
	  DOCKER_BUILDKIT=1 docker build --file infra/images/Dockerfile --target $$role --build-arg SOURCE_DATE_EPOCH=$$epoch --tag updraft/$$role:$$release . || exit; \
	done

validate-manifests: ## Have the current kube context's API server check every manifest; nothing is changed
	@kubectl get namespace updraft >/dev/null || { echo "the API server checks nothing in a namespace that is missing: kubectl apply --server-side -f infra/base/namespace.yaml"; exit 6; }
	@for target in $(TARGETS); do \
	  echo "infra/overlays/$$target"; \
	  kubectl kustomize infra/overlays/$$target | kubectl apply --server-side --dry-run=server --filename - || exit; \
	done

clean: ## Empty UPDRAFT_HOME (.updraft) and the caches
	@[ ! -x $(BIN)/updraft ] || $(BIN)/updraft clean --yes
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build
