# Everything there is to do, a command each. `make` alone lists them.
#
# ARGS are passed on: make run ARGS="--listen 127.0.0.1:8080", make test-python ARGS="tests/core -k latch".
# PYTHON names the interpreter to build .venv with (3.11 or later; python3).

.DEFAULT_GOAL := help
.PHONY: help run test test-python test-js lint format bench lock clean
.NOTPARALLEL:

export PYTHON

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## set up and serve in demo mode on http://127.0.0.1:3000, with its data in ./data
	@tools/setup.sh run
	@.venv/bin/python -m taskwire serve --demo $(ARGS)

test: ## set up and run every check and every test
	@tools/check.sh lint python js -- $(ARGS)

test-python: ## the Python tests only; ARGS go to pytest
	@tools/check.sh python -- $(ARGS)

test-js: ## the JavaScript and browser tests only
	@tools/check.sh js

lint: ## ruff, mypy --strict and import-linter
	@tools/check.sh lint

format: ## bring the source into form
	@tools/setup.sh dev
	@.venv/bin/python -m ruff check --fix-only --quiet
	@.venv/bin/python -m ruff format

bench: ## measure against other servers; ARGS choose what
	@tools/setup.sh dev
	@.venv/bin/python -m bench.run $(ARGS)

lock: ## lock the newest versions that requirements/*.in and package.json allow
	@tools/setup.sh dev
	@tools/lock.sh

clean: ## remove environments and caches; ./data stays
	rm -rf .venv node_modules bench/.cache bench/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests tools bench -name __pycache__ -prune -exec rm -rf {} +
