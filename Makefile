# Everything starts here. From nothing but Python 3.11+, a C compiler and make; the rest comes by pip into .venv.
#
#   make demo       rank plans for a huge cluster, then plan, predict, train and compare on this host
#   make test       all tests but those that need a heavy peer or a GPU
#   make check      format, lint, types, floors, spelling, C tests, fast tests: what a commit must pass
#   make build      rebuild the C engine and the editable install if their sources changed
#   make format     let the formatters rewrite Python and C
#   make bench      benchmarks
#   make sanitize   C tests under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer
#   make peers      tests against torch and transformers, in an environment of their own
#   make test-long  test, sanitize, a million changed plans, the scheduler's grid, peers
#   make ci         what continuous integration runs, from a clean clone
#   make clean      remove what was built; `make distclean` also removes the environments

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The newest Python that is new enough; name another with `make PYTHON=...`.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
    command -v $$python > /dev/null && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    2> /dev/null && echo $$python && break; done)

VENV := .venv
BIN := $(VENV)/bin
NPROC := $(shell getconf _NPROCESSORS_ONLN 2> /dev/null || echo 2)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest
NOT_EXTRA := not peer and not gpu and not fuzz

NATIVE_SOURCES := $(shell find CMakeLists.txt backend_c -name '*.[ch]' -o -name '*.cmake' -o -name CMakeLists.txt)
C_FILES = $(filter %.c %.h,$(NATIVE_SOURCES))
PYTHON_FOLDERS := src sim topology backend_c tests

# The program, ready to use: the runtime's packages, the C engine, an editable install.
RUNTIME := $(VENV)/.stamp-runtime
# The same and the developer's tools.
DEV := $(VENV)/.stamp-dev
# The editable install, as new as the C sources.
BUILT := $(VENV)/.stamp-built
CHECK_TREE := build/check

.PHONY: help
help:
	@sed -n '3,$${/^#/!q;s/^# \{0,3\}//p}' Makefile

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; hint: make PYTHON=/path/to/python3" >&2; exit 8; }
	$(PYTHON) -m venv $(VENV)

# $(call install,REQUIREMENT): an editable install, its build requirements first, so that pip builds in this environment.
define install
@command -v $${CC:-cc} > /dev/null || { echo "error: no C compiler found; hint: install gcc or clang, or set CC" >&2; exit 8; }
@echo "installing $(1) into $(VENV)" >&2
@$(PIP) install 'scikit-build-core>=0.11' 'scipy-openblas32>=0.3.28' 'cmake>=3.24' 'ninja>=1.11'
@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --no-build-isolation --editable '$(1)'
endef

$(RUNTIME): pyproject.toml | $(VENV)/bin/python
	$(call install,.)
	@touch $(BUILT) $@

$(DEV): pyproject.toml | $(VENV)/bin/python
	$(call install,.[dev])
	@touch $(BUILT) $(RUNTIME) $@

$(BUILT): $(NATIVE_SOURCES) | $(RUNTIME)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

.PHONY: build
build: $(RUNTIME) $(BUILT)

.PHONY: dev
dev: $(DEV) $(BUILT)

.PHONY: demo
demo: build
	PATH="$(CURDIR)/$(BIN):$$PATH" bash scenarios/demo.sh

# C tests, warnings as errors, in a tree apart from the one that pip builds.
.PHONY: ctest
ctest: $(DEV)
	@$(BIN)/cmake -S . -B $(CHECK_TREE) -G Ninja --log-level=WARNING \
	    -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
	    -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja > /dev/null
	@$(BIN)/cmake --build $(CHECK_TREE) -- --quiet
	$(BIN)/ctest --test-dir $(CHECK_TREE) --output-on-failure --no-tests=error --parallel $(NPROC)

# Each its own target, so that `make --keep-going lint` shows everything that is wrong.
.PHONY: lint format-python lint-python format-c spelling floors mypy pyright
lint: format-python lint-python format-c spelling floors mypy pyright
format-python: $(DEV)
	$(BIN)/ruff format --check --quiet $(PYTHON_FOLDERS)
lint-python: $(DEV)
	$(BIN)/ruff check --quiet --output-format=concise $(PYTHON_FOLDERS)
format-c: $(DEV)
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
spelling: $(DEV)
	$(BIN)/codespell
floors: $(DEV)
	$(BIN)/lint-imports --no-logo
mypy: $(DEV)
	$(BIN)/mypy --no-error-summary
pyright: $(DEV)
	$(BIN)/pyright --level error

.PHONY: check
check: dev lint ctest
	$(PYTEST) -q -n 2 -m "$(NOT_EXTRA) and not slow"

.PHONY: test
test: dev ctest
	$(PYTEST) -n 2 -m "$(NOT_EXTRA)"

.PHONY: format
format: $(DEV)
	$(BIN)/ruff format $(PYTHON_FOLDERS)
	$(BIN)/ruff check --fix --quiet $(PYTHON_FOLDERS)
	$(BIN)/clang-format -i $(C_FILES)

.PHONY: bench
bench: dev
	@shopt -s nullglob; scripts=(tests/bench/*.py); \
	test $${#scripts[@]} -gt 0 || { echo "error: tests/bench holds no scripts" >&2; exit 1; }; \
	for script in "$${scripts[@]}"; do \
	    [[ $$script == */auto_grid.py ]] && continue; \
	    echo "== $$script"; $(BIN)/python "$$script"; \
	done

# ThreadSanitizer knows nothing of OpenBLAS, which is not built with it: portable C there.
.PHONY: sanitize sanitize-address sanitize-thread
sanitize: sanitize-address sanitize-thread
sanitize-address: $(DEV)
	BUILD_TREE=build/asan SANITIZERS=address,undefined BLAS=AUTO bash .ci/sanitize
sanitize-thread: $(DEV)
	BUILD_TREE=build/tsan SANITIZERS=thread BLAS=OFF bash .ci/sanitize

.PHONY: peers
peers: $(DEV) $(BUILT)
	bash .ci/peers

# The full lists: every test, the sanitizers, a long search for plans that break the C reader, the grid of the
# automatic scheduler, the peers.
FUZZ_PLANS ?= 1000000
.PHONY: test-long
test-long: test sanitize
	build/asan/backend_c/test_plan_fuzz $(FUZZ_PLANS)
	$(PYTEST) -n 2 -m "fuzz"
	$(BIN)/python tests/bench/auto_grid.py --out docs/measured/auto-grid.md
	$(MAKE) peers

.PHONY: ci
ci:
	bash .ci/run

.PHONY: clean distclean
clean:
	rm -rf build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f $(BUILT)
distclean: clean
	rm -rf $(VENV) .venv-peers
