# Needs git, make and Python 3.11, 3.12 or 3.13 with venv and pip; everything else is installed into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first Python of a fitting version that can make an environment. Another: make lab PYTHON=/path/to/python3
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if $$p -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	then echo $$p; break; fi; done)

UNIT_TESTS := tests --ignore=tests/browser --ignore=tests/parity
# Tests marked slow train for long, and what they show does not depend on backend or versions.
QUICK_TESTS := $(UNIT_TESTS) -m 'not slow'
# Two workers, each with whole files and whole notebooks (a notebook's cells share one kernel), in
# the order of tests/conftest.py: the slowest first.
WORKERS ?= 2
IN_PARALLEL := --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder
NOTEBOOKS := --nbval --nbval-cell-timeout=600

# TensorFlow's own start-up lines are not the course's.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help
help: ## this list
	@echo "The diffusion walkthrough. Usage: make TARGET"
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  \1\t\2/p' Makefile | expand -t 14

.PHONY: lab
lab: study ## set up, then open your copy of the course in JupyterLab
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/study/00_start_here.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: study
study: $(STAMP) ## copy the notebooks, without outputs, into study/, where you work (FRESH=1: anew, the old kept)
	$(BIN)/python tools/study.py $(if $(FRESH),--fresh)

.PHONY: test
test: $(STAMP) ## set up, then run all tests and compare every notebook's outputs
	$(BIN)/pytest $(IN_PARALLEL) $(NOTEBOOKS) $(UNIT_TESTS) $$(ls -d notebooks 2>/dev/null)

.PHONY: check
check: $(STAMP) ## format, lint, types, spelling, links, and the rules for notebooks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/codespell $$(git ls-files)
	$(BIN)/python tools/links.py
	$(BIN)/python tools/notebooks.py check

.PHONY: notebooks
notebooks: $(STAMP) ## format the notebooks and run those whose code has changed, in place
	$(BIN)/ruff format notebooks
	$(BIN)/python tools/notebooks.py execute $(if $(FORCE),--force)

# Only what computes with tensors (tests/conftest.py marks it), on JAX and PyTorch at the same time.
TENSOR_TESTS := .venv-backends/bin/pytest -q $(UNIT_TESTS) -m 'tensors and not slow'
# Many tests compile the same little network: once is enough.
JAX_CACHE := JAX_COMPILATION_CACHE_DIR="$(CURDIR)/.venv-backends/jax-cache" \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

.PHONY: backends
backends: .venv-backends/.installed ## tests with tensors on JAX and on PyTorch (downloads both)
	@echo "PyTorch writes to .venv-backends/torch.log meanwhile."
	OMP_NUM_THREADS=1 KERAS_BACKEND=torch $(TENSOR_TESTS) >.venv-backends/torch.log 2>&1 & torch=$$!; \
	jax=0; KERAS_BACKEND=jax $(JAX_CACHE) $(TENSOR_TESTS) || jax=1; \
	wait $$torch || { cat .venv-backends/torch.log; exit 1; }; tail -n 1 .venv-backends/torch.log; exit $$jax

.PHONY: lowest
lowest: .venv-lowest/.installed ## unit tests with the oldest versions that pyproject.toml allows (Python 3.11)
	.venv-lowest/bin/pytest $(IN_PARALLEL) $(QUICK_TESTS) --deselect tests/test_project_files.py

.PHONY: parity
parity: ## compare with independent implementations (downloads PyTorch and diffusers)
	@if compgen -G 'tests/parity/test_*.py' >/dev/null; \
	then $(MAKE) .venv-parity/.installed && OMP_NUM_THREADS=1 .venv-parity/bin/pytest $(IN_PARALLEL) tests/parity; \
	else echo "tests/parity holds no tests yet: nothing to compare."; fi

.PHONY: bench
bench: .venv-parity/.installed ## how fast, beside diffusers (see benchmarks/README.md)
	.venv-parity/bin/python benchmarks/speed.py

.PHONY: mutants
mutants: $(STAMP) ## put each published mistake into the package, see a test fail (CHANGED=1: where code has changed)
	$(BIN)/python tools/mutants.py --workers $(WORKERS) $(if $(CHANGED),--changed)

.PHONY: fuzz
fuzz: $(STAMP) ## damage 20,000 files at random, see each read or refused (SEED=7: those of a seed)
	$(BIN)/python tools/fuzz.py --workers $(WORKERS) $(if $(SEED),--seed $(SEED))

.PHONY: kills
kills: $(STAMP) ## kill 200 processes while they save or train, see the earlier or the later left, whole
	folder=$$(mktemp -d); PYTHONPATH=tests $(BIN)/python tests/kills.py $$folder 200 $${SEED:-$$RANDOM}; rm -rf $$folder

.PHONY: checks
checks: $(STAMP) ## break what each Check on a page checks, see the page notice
	$(BIN)/python tools/page_checks.py --workers $(WORKERS)

.PHONY: browser
browser: $(STAMP) ## open every notebook in Chromium, move its sliders
	$(BIN)/pytest --numprocesses=$(WORKERS) --dist=loadgroup tests/browser

.PHONY: odd
odd: $(STAMP) ## a day of work without home, network, memory, letters, or leave to write
	$(BIN)/python tools/odd_environments.py

.PHONY: audit
audit: .venv-audit/.installed ## look the lock up in the database of known vulnerabilities (downloads pip-audit)
	.venv-audit/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off

.PHONY: lock
lock: $(STAMP) ## write requirements.lock anew from pyproject.toml (UPGRADE=1: newest versions)
	$(BIN)/uv pip compile pyproject.toml --extra lab --group test --group check --group browser --output-file requirements.lock \
		--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## remove the environments and everything that runs leave behind
	rm -rf .venv .venv-backends .venv-parity .venv-lowest .venv-audit build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis browser-failures
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# The environments. Each is made once, and again when what it is made from has changed.
$(STAMP): requirements.lock pyproject.toml tools/set_up.sh
	@tools/set_up.sh $(VENV) "$(PYTHON)"

# PyTorch comes through pip, which also takes a wheel of it from a folder (PIP_FIND_LINKS); uv installs the rest.
.venv-backends/.installed .venv-parity/.installed: .venv-%/.installed: requirements.lock pyproject.toml tools/set_up.sh
	@tools/set_up.sh .venv-$* "$(PYTHON)" $*

.venv-lowest/.installed: $(STAMP)
	$(BIN)/python -m venv .venv-lowest
	VIRTUAL_ENV=.venv-lowest $(BIN)/uv pip install --quiet --resolution lowest-direct --editable . --group test
	@touch $@

.venv-audit/.installed: $(STAMP)
	$(BIN)/python -m venv .venv-audit
	VIRTUAL_ENV=.venv-audit $(BIN)/uv pip install --quiet --group audit
	@touch $@
