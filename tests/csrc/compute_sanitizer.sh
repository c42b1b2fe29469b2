#!/usr/bin/env bash
# The operators' tests on a device under NVIDIA's compute-sanitizer: out-of-bounds and misaligned accesses, races in
# shared memory, reads of memory that nobody wrote, barriers that not every thread reaches. Takes minutes a tool.
#   tests/csrc/compute_sanitizer.sh [memcheck racecheck initcheck synccheck]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not on PATH; it comes with the CUDA toolkit" >&2; exit 1; }
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "there is no CUDA device")'
for tool in ${*:-memcheck racecheck initcheck synccheck}; do
  # torch's caching allocator would hide where a tensor ends.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all \
    "$python" -m pytest -q -p no:cacheprovider -k "cuda and not emulated" \
    tests/ops/conformance tests/ops/test_special_values.py
done
