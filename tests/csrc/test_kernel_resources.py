"""What every CUDA kernel takes of a multiprocessor, on every architecture: `pytest FILE -s` prints the table.

nvcc compiles each .cu as CMakeLists.txt does and ptxas reports; block sizes are those of launches in the emulator.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tools.emulator import emulated

CSRC = Path(__file__).resolve().parents[2] / "csrc"

pytestmark = pytest.mark.slow
FLAGS = ["-O3", "-DNDEBUG", "-std=c++17", "--ftz=true"]


@dataclass(frozen=True)
class Multiprocessor:
    """Limits from the CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"."""

    warps: int
    blocks: int
    shared: int  # bytes
    shared_a_block: int  # bytes that the system takes of each block's
    registers: int = 65536


ARCHITECTURES = {
    75: Multiprocessor(32, 16, 64 * 1024, 0),
    80: Multiprocessor(64, 32, 164 * 1024, 1024),
    86: Multiprocessor(48, 16, 100 * 1024, 1024),
    89: Multiprocessor(48, 24, 100 * 1024, 1024),
    90: Multiprocessor(64, 32, 228 * 1024, 1024),
    100: Multiprocessor(64, 32, 228 * 1024, 1024),
    120: Multiprocessor(48, 24, 100 * 1024, 1024),
}


@dataclass(frozen=True)
class Usage:
    architecture: int
    kernel: str  # demangled
    stack: int
    spills: int
    registers: int
    shared: int  # bytes, static

    @property
    def name(self) -> str:
        """With template arguments."""
        found = re.search(
            r"(\w+(<.*>)?)\(", re.sub(r"maskmatch::(?:cuda::)?|[(]anonymous namespace[)]::", "", self.kernel)
        )
        assert found, self.kernel
        return found[1].replace("(LossMode)", "LossMode ")


def occupancy(usage: Usage, threads: int, dynamic_shared: int) -> float:
    """Resident warps of the most that fit; registers go to warps by 256, and to four warps at a time."""
    limits = ARCHITECTURES[usage.architecture]
    warps = math.ceil(threads / 32)
    by_registers = limits.registers // (math.ceil(usage.registers * 32 / 256) * 256) // 4 * 4 // warps
    shared = math.ceil((usage.shared + dynamic_shared + limits.shared_a_block) / 256) * 256
    by_shared = limits.shared // shared if shared else limits.blocks
    return min(limits.blocks, limits.warps // warps, by_registers, by_shared) * warps / limits.warps


def usages(report: str) -> Iterator[Usage]:
    """What `ptxas -v` printed, one entry function after the other."""
    pattern = (
        r"entry function '([^\n]*)' for 'sm_(\d+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers(.*?)\n"
    )
    for kernel, architecture, stack, stores, loads, registers, rest in re.findall(pattern, report, re.DOTALL):
        shared = re.search(r"(\d+) bytes smem", rest)
        yield Usage(
            int(architecture), kernel, int(stack), int(stores) + int(loads), int(registers),
            int(shared[1]) if shared else 0,
        )  # fmt: skip


@pytest.fixture(scope="module")
def launches() -> dict[str, tuple[int, int]]:
    """Threads and dynamic shared memory of every kernel, from training's operators at 21 classes and a width of 321."""
    if emulated.compiler() is None:
        pytest.skip("no C++ compiler")
    emulator = emulated.load()
    emulator.module.set_device(1)  # with the least shared memory
    logits = [torch.zeros(1, 21, 3, 41), torch.zeros(1, 21, 4, 61), torch.zeros(1, 21, 2, 21)]
    target = torch.zeros(1, 20, 321, dtype=torch.uint8)
    emulator.module.take_launches()
    # As many patches as take a kernel of their own.
    emulator.patch_mask(target[:, None].expand(1, 3, 20, 321), 1, 0.5, torch.tensor([1]), "random", *[[0.5] * 3] * 3)
    emulator.multiscale_pseudo_label(logits, 20, 321, [False] * 3, [1 / 3] * 3, "probability", False)
    emulator.multiscale_pseudo_label(logits, 20, 321, [False] * 3, [1 / 3] * 3, "logit", False)
    for of_loss in (target, target[:, :3, :41]):  # the second one too small for the fast form
        emulator.upsample_cross_entropy(
            logits[0].requires_grad_(), of_loss, None, 0.0, None, None, 255, 0.0, False, "all", None
        )
    emulator.uniform(torch.tensor([1]), 5, 0)
    emulator.module.set_device(0)
    names = ["hide_patches", "normalize", "pseudo_label_series", "pseudo_label_general"]
    names += ["cross_entropy_series", "sum_blocks", "cross_entropy_general", "sum_blocks", "draw"]
    launches = [(threads, shared) for threads, shared, _, _ in emulator.module.take_launches()]
    return dict(zip(names, launches, strict=True))


@pytest.mark.parametrize("source", sorted(CSRC.glob("cuda/*.cu")), ids=lambda source: source.name)
def test_no_spill_and_no_stack(source: Path, nvcc: str, launches: dict[str, tuple[int, int]], tmp_path: Path) -> None:
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in ARCHITECTURES]
    done = subprocess.run(
        [nvcc, *FLAGS, *targets, "-Xptxas=-v", "--threads=0", "-c", str(source), "-o", str(tmp_path / "kernels.o")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report = subprocess.run(["c++filt"], input=done.stderr, capture_output=True, text=True, check=True).stdout
    found = sorted(usages(report), key=lambda usage: (usage.name, usage.architecture))
    assert len(found) == report.count("Compiling entry function") > 0 and len(found) % len(ARCHITECTURES) == 0
    for usage in found:
        threads, dynamic_shared = launches[usage.name.partition("<")[0]]
        resident = occupancy(usage, threads, dynamic_shared)
        print(
            f"\n  sm_{usage.architecture:<3} {usage.registers:3} registers, {usage.shared + dynamic_shared:5} bytes "
            f"shared, {usage.stack} stack, {usage.spills} spilled, {threads:3} threads, occupancy {resident:4.0%}  "
            f"{usage.name}",
            end="",
        )
        assert usage.stack == usage.spills == 0, usage
        assert resident > 0, f"{usage.name} does not fit sm_{usage.architecture} with {threads} threads"
