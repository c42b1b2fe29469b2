"""The worker: a process with the fake device, started once, that runs one case after the other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
LIBRARY = "libcuda.so.1"  # what the driver's library is called


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that answers for CUDA's runtime and driver."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    headers = Path(sysconfig.get_path("purelib")) / "triton" / "backends" / "nvidia" / "include"
    for missing, reason in (
        (torch.version.cuda is None, "torch is built without CUDA"),
        (compiler is None, "there is no C compiler"),
        (not headers.is_dir(), f"Triton's CUDA headers are not in {headers}"),
    ):
        if missing and os.environ.get("MASKMATCH_REQUIRE_CUDA_BUILD") == "1":
            pytest.fail(f"{reason}, and MASKMATCH_REQUIRE_CUDA_BUILD=1 is set")
        if missing:
            pytest.skip(reason)
    library = tmp_path_factory.mktemp("stubs") / LIBRARY
    options = ["-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}", "-I", str(headers)]
    subprocess.run([str(compiler), *options, "-o", str(library), str(HERE / "cuda_stubs.c")], check=True)
    return library


@pytest.fixture(scope="session")
def fake_device(stubs: Path, run: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that has the worker do something; what it found, `error` and `at` where it ended in an exception."""
    environment = os.environ | {
        "LD_PRELOAD": str(stubs),
        "LD_LIBRARY_PATH": str(stubs.parent),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, str(HERE / "worker.py"), str(run)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        requests, answers = process.stdin, process.stdout
        if requests is None or answers is None:
            raise OSError("no pipes to the worker")

        def call(**request: Any) -> dict[str, Any]:
            print(json.dumps(request), file=requests, flush=True)
            answer = answers.readline()
            if not answer:
                pytest.fail(f"the process of the fake device ended with {process.wait()} in {request}")
            found: dict[str, Any] = json.loads(answer)
            return found

        yield call
        requests.close()
