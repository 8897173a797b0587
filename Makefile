# Nothing but make and a Python of 3.11 or later is assumed. Each environment is made on
# first use and again when pyproject.toml or constraints.txt changes.

# constraints.txt was resolved on 3.11, so that one is preferred; `make PYTHON=… test` overrides.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
WORKERS ?= 2
TESTS ?=

VENV := .venv
DEMO_VENV := .venv-demo
BENCH_VENV := .venv-bench

.PHONY: help demo test lint format types bench venv clean

help:
	@echo 'make demo    compile LeNet-5 and train it on the bundled digits'
	@echo 'make test    the tests (TESTS="tests/ir -k dims" for some, TESTS=--exhaustive for all, WORKERS=n)'
	@echo 'make lint    ruff: rules and formatting (make format mends)'
	@echo 'make types   mypy, strict'
	@echo 'make bench   the benchmarks, beside their peers'
	@echo 'make clean   remove environments, caches and build output'

venv: $(VENV)/.stamp

$(VENV)/.stamp: EXTRAS := [test,dev]
$(DEMO_VENV)/.stamp: EXTRAS :=
$(BENCH_VENV)/.stamp: EXTRAS := [bench]

%/.stamp: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "brickc needs Python 3.11 or later; none was found" >&2; exit 1; }
	@echo "preparing $* with $(PYTHON)"
	@$(PYTHON) -m venv $*
	@$*/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.$(EXTRAS)'
	@touch $@

demo: $(DEMO_VENV)/.stamp
	$(DEMO_VENV)/bin/brickc train zoo:lenet5 --data digits --epochs 12 --batch 64 \
		--save build/demo/lenet5 --dump-ir build/demo/ir

# One thread a worker: the workers already fill the cores. bin/pytest, not python -m pytest,
# which would put the root on sys.path and so make `import ir` work in a test.
test: $(VENV)/.stamp
	@OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q -n $(WORKERS) $(TESTS)

lint: $(VENV)/.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(VENV)/.stamp
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The link lets mypy find the root under the package's name (see [tool.mypy]).
.mypy_path/brickc:
	@mkdir -p .mypy_path
	@ln -sfn .. $@

types: $(VENV)/.stamp .mypy_path/brickc
	$(VENV)/bin/mypy

bench: $(BENCH_VENV)/.stamp
	$(BENCH_VENV)/bin/python benchmarks/run.py

clean:
	rm -rf $(VENV) $(DEMO_VENV) $(BENCH_VENV) .mypy_path .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis build dist brickc.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
