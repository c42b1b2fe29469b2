# `make train` and `make test` need Python 3.10+, a C++ compiler and make; everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
CSRC := $(shell find csrc tools -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
# Real images and weights that some tests can use; tests that miss them are skipped.
export MASKMATCH_TEST_DATA ?= $(abspath $(wildcard ../shared))

.PHONY: train test quick docs docs-links sanitize oldest lint format clean

train: .venv/installed
	$(BIN)/python -m maskmatch.train --fused

# A process for each core, up to four: each may take several gigabytes. What is in one file stays in one process.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: .venv/installed lint
	$(PYTEST)

quick: .venv/installed
	$(PYTEST) -m "not slow"

# The site, from docs/ and the docstrings, into build/site; warnings and links that lead nowhere end it. It reads the
# package's text and imports nothing of it, so it has a small environment of its own.
DOCS := build/docs-venv
docs: $(DOCS)/installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

$(DOCS)/installed: pyproject.toml
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet "mkdocs<2" mkdocs-material "mkdocstrings[python]"
	touch $@

# Links to other sites, which need a network: listed, and each asked for.
docs-links:
	$(PYTHON) tools/external_links.py

# The operators' C++, and the CUDA kernels on the CPU, under AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of
# the package.
SANITIZED := build/sanitize
UNDER_SANITIZERS = LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 PYTHONPATH=$(SANITIZED) \
    $(BIN)/python -P -m pytest -p no:cacheprovider
sanitize: .venv/installed
	$(BIN)/cmake -G Ninja -S . -B $(SANITIZED) -DMASKMATCH_SANITIZE=ON -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	    -DTORCH_ROOT=$$($(BIN)/python -c "import torch; print(torch.__path__[0])")
	$(BIN)/cmake --build $(SANITIZED)
	rm -rf $(SANITIZED)/maskmatch && cp -r maskmatch $(SANITIZED)/ && rm -f $(SANITIZED)/maskmatch/_C_cuda.so
	cp $(SANITIZED)/_C.so $(SANITIZED)/maskmatch/
	$(UNDER_SANITIZERS) -k cpp tests/ops/conformance tests/ops/test_special_values.py tests/ops/test_threads.py \
	    tests/ops/test_uniform.py
	MASKMATCH_EMULATOR=sanitized $(UNDER_SANITIZERS) -k cuda-emulated -m "not slow" \
	    tests/ops/conformance tests/ops/test_special_values.py tests/ops/test_threads.py

# Older releases of torch in place of the installed one, whose compiler differs: the first is the oldest supported.
# They are CUDA builds, gigabytes each, and stay under build/.
OLDER := 2.10.0 2.11.0
oldest: .venv/installed
	for version in $(OLDER); do \
	    test -d build/torch-$$version || $(BIN)/python -m pip install --quiet --target build/torch-$$version \
	        torch==$$version torchvision || exit 1; \
	    PYTHONPATH=build/torch-$$version $(BIN)/python -m pytest tests/method/test_compile.py || exit 1; \
	done

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
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
