# Every target sets up what it needs in .venv, from nothing but Python and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread a test process: threads that wait for one another are much slower. Idle processes take tests from busy ones.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

.PHONY: demo quick test lint dist lowest clean

demo: $(VENV)/.installed
	$(BIN)/tectum demo --out demo

quick: $(VENV)/.installed-dev lint
	$(PYTEST) -m "not slow"

# Coverage is that of the quick tests: it doubles the time of those that export networks.
test: $(VENV)/.installed-dev lint
	$(PYTEST) -m "not slow" --doctest-modules src tests --cov --cov-report=
	$(BIN)/python tests/coverage_by_room.py
	$(PYTEST) -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dist: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --quiet
	ls -l dist

# Quick tests, but those that compare with packages of the dev extra, on the lowest versions that pyproject.toml allows.
LOWEST_TESTS := tests/data tests/scenes tests/viz tests/losses/test_balance.py tests/losses/test_segmentation_loss.py \
	tests/metrics/test_table.py tests/metrics/test_fusion.py tests/recipes tests/models/test_models.py \
	tests/models/test_all_models.py tests/predict/test_predictor.py tests/cli --ignore tests/cli/test_models.py
lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
		-e '.[train]' 'pytest>=8'
	OMP_NUM_THREADS=2 .venv-lowest/bin/python -m pytest -q -m "not slow" $(LOWEST_TESTS)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .venv-lowest demo dist build
