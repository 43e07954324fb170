# Needs Python 3.11 or newer and nothing else: whatever a target needs, it installs into .venv first.
VENV := .venv
ENGINES := .venv-engines
RUN := $(VENV)/bin/python
# Tests that live in one process run side by side; those that start engines, or processes
# of their own, want the machine for themselves.
QUICK := tests/unit tests/property tests/replay examples --ignore tests/unit/claims
LIVE := tests/unit/claims tests/docs tests/integration tests/e2e
export TORCH PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-engines compiled check pythons clean

help: ## List these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.engine ## Start a small fleet on this machine, send it traffic, and compare it with its simulation.
	@$(RUN) -m millrace demo

serve: $(VENV)/.engine ## Serve the demo model behind the gateway until Ctrl-C.
	@$(RUN) -m millrace serve --demo

test: export HF_HUB_OFFLINE := 1
test: $(VENV)/.dev ## Run every test, with full branch coverage of the pure half.
	@status=0; \
	$(RUN) -m pytest --quiet --numprocesses auto --dist worksteal --cov --cov-report= $(QUICK) || status=1; \
	$(RUN) -m pytest --quiet --cov --cov-append --cov-report=term-missing:skip-covered --cov-fail-under=100 $(LIVE) \
		|| status=1; \
	exit $$status

test-engines: $(VENV)/.dev $(ENGINES)/.made ## Prove Millrace against vLLM and llama.cpp, whose servers it installs first.
	@$(RUN) -m pytest --quiet tests/engines

compiled: $(VENV)/.dev ## Compile the hot modules into build/compiled, and run property and replay tests on them.
	@rm -rf build/compiled
	@MILLRACE_COMPILED=1 $(RUN) -m pip install --quiet --no-deps --target build/compiled .
	@PYTHONPATH=build/compiled $(RUN) -m pytest --quiet tests/property tests/replay

check: $(VENV)/.dev ## Check style, types, layers, sizes and docs.
	@$(RUN) scripts/check.py

pythons: $(VENV)/.dev ## Compare event logs, byte for byte, between the Pythons found here (PYTHONS names them).
	@$(RUN) scripts/pythons.py $(PYTHONS)

clean: ## Remove what tools left behind; .venv and .venv-engines stay.
	@rm -rf build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@rm -rf .import_linter_cache millrace-demo
	@find src tests scripts benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.engine: pyproject.toml scripts/setup.sh
	@scripts/setup.sh engine
	@touch $@

$(VENV)/.dev: pyproject.toml scripts/setup.sh
	@scripts/setup.sh engine,dev
	@touch $(VENV)/.engine $@

$(ENGINES)/.made: $(VENV)/.dev scripts/engines.sh
	@scripts/engines.sh
	@touch $@
