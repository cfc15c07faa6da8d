# Everything here sets itself up: the first call makes .venv, later calls reuse it until pyproject.toml changes.
PYTHON ?= python3
WORKERS ?= 2
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TIMES ?= 20
TRIALS ?= 15
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast repeat lint torture docs clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## make .venv and install the package with its development tools

demo: $(READY) ## base-to-new on the photographs of the package; writes runs/demo/report.html
	@$(BIN)/gopro demo

test: lint ## lint, types and the tests, with their coverage (WORKERS=2)
	$(PYTEST) --cov --cov-report=

test-fast: $(READY) ## the tests that take less than 5 s each, without coverage
	$(PYTEST) -q -m "not slow"

repeat: $(READY) ## the tests in a row, each time in another order and without coverage, until one fails (TIMES=20)
	@for i in $$(seq $(TIMES)); do $(PYTEST) -q || exit 1; echo "$$i of $(TIMES) done"; done

lint: $(READY) ## ruff (rules and format), the import contract and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

torture: $(READY) ## the tests that draw random trials (kills, full disks, hostile input), many times (TRIALS=15)
	$(PYTEST) -q --trials $(TRIALS) tests/training/test_kills.py tests/training/test_full_disk.py tests/properties/test_changing_images.py \
		tests/properties/test_untrusted_files.py tests/properties/test_untrusted_requests.py

docs: $(READY) ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'see site/index.html; with search: $(BIN)/python -m http.server -d site'

clean: ## remove caches and built files; .venv and runs stay
	rm -rf dist build site .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Python 3.11 or newer is needed; "$(PYTHON)" is not. Name another: make PYTHON=/path/to/python3.11' >&2; \
		exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo 'making $(VENV)'; \
		$(PYTHON) -m venv --clear $(VENV); }
	@echo 'installing PyTorch and friends into $(VENV): several minutes the first time'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
