# `make train` and `make test` need Python 3.10+, a C++ compiler and make; everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
CSRC := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
# Real images and weights that some tests can use; tests that miss them are skipped.
export MASKMATCH_TEST_DATA ?= $(abspath $(wildcard ../shared))

.PHONY: train test quick lint format clean

train: .venv/installed
	$(BIN)/python -m maskmatch.train --fused

test: .venv/installed lint
	$(BIN)/python -m pytest

quick: .venv/installed
	$(BIN)/python -m pytest -m "not slow"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy maskmatch benchmarks
	$(BIN)/clang-format --dry-run --Werror $(CSRC)

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CSRC)

# torch is installed once: the extension is then built against it, without an isolated build that would fetch it again.
.venv/torch: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "setuptools>=77" wheel ninja "cmake>=3.26" "torch>=2.10" torchvision
	touch $@

.venv/installed: .venv/torch setup.py CMakeLists.txt $(CSRC)
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".[test]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
