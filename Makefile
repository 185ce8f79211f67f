# make demo    build, run and ship a small web service with nothing but this checkout
# make test    format, lint, types, import contracts, then every test
# make bench   timings as ratios against the peers that are installed
# make soak    the slow tests: kill -9 at random moments, many builds at once, fuzzing guided by coverage

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
export PYTHONDONTWRITEBYTECODE ?=

.PHONY: demo test lint format bench soak setup clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml scripts/venv
	scripts/venv $(VENV)

demo: setup
	$(BIN)/python scripts/demo

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup lint
	tests/setup.sh
	$(PYTEST) -q tests/unit tests/contract tests/property tests/fuzz
	$(PYTEST) -q tests/integration tests/conformance

bench: setup
	tests/setup.sh
	$(BIN)/python tests/bench/bench.py $(BENCH)

soak: setup
	tests/setup.sh
	$(PYTEST) -m soak tests

clean:
	rm -rf $(VENV) .cache demo-out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
