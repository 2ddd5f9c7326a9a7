# The commands of the project; `make help` lists them. Each makes .venv first where it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
export PATH := $(abspath $(BIN)):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help install moved demo test test-slow check format docs fuzz chaos bench errors ui lock clean

help: ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(READY) ## make .venv with the exact versions of constraints.txt

$(READY): pyproject.toml constraints.txt $(if $(filter-out $(CURDIR),$(shell cat $(READY) 2>/dev/null)),moved)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "avrecog needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d: name another with `make PYTHON=python3.12 ...`" % v)'
	test -x $(BIN)/python && [ "$$(cat $(READY) 2>/dev/null || echo "$(CURDIR)")" = "$(CURDIR)" ] || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	echo "$(CURDIR)" > $(READY)

moved: # a virtual environment holds the path that it was made for, and is made anew elsewhere

demo: $(READY) ## make the demo clips, run the pipeline on them, print the result table
	dvc repro
	@cat results/ZOO.md
	@echo
	@echo 'Next: make ui                                  compare the runs in the browser'
	@echo '      . .venv/bin/activate                     then, in this shell:'
	@echo '      dvc exp run -S train.lr=0.08             try another learning rate'
	@echo '      dvc exp show                             the experiments side by side'
	@echo '      avrecog predict FILE...                  what a trained model makes of a file'

test: $(READY) ## run the tests (not the slow ones), one process a core, and print the coverage
	OMP_NUM_THREADS=1 python -m pytest -m "not slow" -n logical --maxprocesses 8 --cov --cov-report=term

test-slow: $(READY) ## run the slow tests too; installs Debian's chromium for the page
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null)
	python -m pytest -m slow

check: $(READY) ## format, lint, types, docstrings, import rules, pages
	ruff format --check src stages tests
	ruff check src stages tests
	mypy
	lint-imports
	@$(MAKE) --no-print-directory docs

format: $(READY) ## put the code into its format
	ruff format src stages tests
	ruff check --fix src stages tests

docs: $(READY) ## build the pages and the reference into site/; dead links, missing pages and names that are gone fail
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict  # not --quiet, which hides the warnings from --strict
	python -m pytest -q tests/test_docs.py
	@echo 'docs: site/index.html'

fuzz: $(READY) ## 10,000 mutated inputs for each file format (10 minutes)
	AVRECOG_FUZZ=10000 python -m pytest -s -q tests/fuzz

chaos: $(READY) ## kill the pipeline at 20 random moments and compare what it ends on (45 minutes)
	PYTHONPATH=src python tests/chaos.py

bench: $(READY) ## run every benchmark on a quiet machine and write BENCHMARKS.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	LWS_USE_CYTHON=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation lws==1.2.8
	PYTHONPATH=src OMP_NUM_THREADS=1 python benchmarks/run_all.py

errors: $(READY) ## write docs/errors.md from the cases that the tests run
	PYTHONPATH=src:tests python tests/bad_input/table.py

ui: $(READY) ## MLflow's page on http://127.0.0.1:5000, started quickly
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1

lock: ## resolve the ranges of pyproject.toml anew and write constraints.txt
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	(echo '# Exact versions that the make targets install; made by `make lock`. Ranges stand in pyproject.toml.'; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -v ' @ ') > constraints.txt
	echo "$(CURDIR)" > $(READY)

clean: ## remove what the pipeline made (not the runs in mlruns)
	rm -rf data models results
