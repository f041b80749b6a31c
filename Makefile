# `make demo` and `make check` set up everything they need in .venv; `make help` lists the targets.

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

DEMO_OUT := results/demo
DEMO_MODEL ?= tiny.en
DEMO_DEVICE ?= imx8mplus
# one word of the sample is 0.17 points: a tighter budget would be a matter of four words
DEMO_WER_BUDGET ?= +50%
DEMO_HOURS ?= 0.13
DEMO_OPTIONS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo check lint types imports test audit sample-speech clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/.installed  ## make .venv with everything for demo and check

# torch first: the one large download, so that a failure is seen at once and by itself
.venv/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up .venv (several minutes the first time)"
	$(PYTHON) -m venv .venv
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e '.[demo,test,lint,nni]'
	@touch $@

demo: .venv/.installed  ## search a small tiny.en for the i.MX 8M Plus, on the sample speech, into results/demo
	rm -rf $(DEMO_OUT)
	$(BIN)/whisperfit search --model $(DEMO_MODEL) --device $(DEMO_DEVICE) --data sample --confirm sample-confirm \
		--wer-budget $(DEMO_WER_BUDGET) --hours $(DEMO_HOURS) $(DEMO_OPTIONS) --out $(DEMO_OUT)

check: lint types imports test  ## everything that must pass before a commit

lint: .venv/.installed  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed  ## mypy --strict
	$(BIN)/mypy

imports: .venv/.installed  ## the direction of imports
	$(BIN)/lint-imports

test: .venv/.installed  ## pytest, on up to four cores
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

audit: .venv/.installed  ## known vulnerabilities of what is installed, by pip-audit; asks pypi.org
	$(INSTALL) -e '.[audit]'
	$(BIN)/pip-audit --local --skip-editable

sample-speech: .venv/.installed  ## synthesise the sample speech anew
	$(INSTALL) -e '.[synthesis]'
	$(BIN)/python -m evaluators.sample_speech.synthesise

clean:  ## remove .venv, caches and results/demo
	rm -rf .venv build *.egg-info $(DEMO_OUT)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
