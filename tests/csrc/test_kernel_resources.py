"""What every CUDA kernel takes of a multiprocessor, on every architecture: `pytest FILE -s` prints the table.

Read from the machine code in the built library; block sizes are those of launches in the emulator.
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

pytestmark = pytest.mark.slow
FROM_90_ON = 1024  # bytes of shared memory that the system takes, counted among the kernel's own


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
    stack: int  # bytes, of which spilled registers are a part
    local: int  # bytes
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


def usages(code: Path) -> Iterator[Usage]:
    """Every kernel in a library or a fatbin, for each architecture that it is there for."""
    knobs = pytest.importorskip("triton").knobs  # which brings NVIDIA's tool
    listing = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(code)]
    listed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    plain = subprocess.run(["c++filt"], input=listed, capture_output=True, text=True, check=True).stdout
    for part in re.split(r"^arch = sm_", plain, flags=re.MULTILINE)[1:]:
        architecture = int(re.match(r"\d+", part)[0])  # type: ignore[index]
        pattern = r"Function (.*):\n *REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
        for kernel, registers, stack, shared, local in re.findall(pattern, part):
            own = max(0, int(shared) - FROM_90_ON) if architecture >= 90 else int(shared)
            yield Usage(architecture, kernel, int(stack), int(local), int(registers), own)


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


def test_no_spill_and_no_stack(cuda_library: Path, launches: dict[str, tuple[int, int]]) -> None:
    found = sorted(usages(cuda_library), key=lambda usage: (usage.name, usage.architecture))
    assert {usage.name.partition("<")[0] for usage in found} == set(launches)
    architectures = list(map(int, torch.ops.maskmatch.cuda_architectures().split()))
    for architecture in architectures:
        there = [usage.name for usage in found if usage.architecture == architecture]
        assert len(there) == len(found) / len(architectures) and set(there) == {usage.name for usage in found}
    for usage in found:
        threads, dynamic_shared = launches[usage.name.partition("<")[0]]
        resident = occupancy(usage, threads, dynamic_shared)
        print(
            f"\n  sm_{usage.architecture:<3} {usage.registers:3} registers, {usage.shared + dynamic_shared:5} bytes "
            f"shared, {usage.stack + usage.local} stack and spills, {threads:3} threads, occupancy {resident:4.0%}  "
            f"{usage.name}",
            end="",
        )
        assert usage.stack == usage.local == 0, usage
        assert resident > 0, f"{usage.name} does not fit sm_{usage.architecture} with {threads} threads"


SPILLS = """
__global__ void kernel(float* numbers) {
  float own[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) own[i] = numbers[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) numbers[i * 1024 + threadIdx.x] = own[63 - i] * own[i];
}
"""


def test_a_spill_is_seen(nvcc: str, tmp_path: Path) -> None:
    source, code = tmp_path / "kernel.cu", tmp_path / "kernel.fatbin"
    source.write_text(SPILLS)
    subprocess.run([nvcc, "-fatbin", "-arch=sm_90", "-maxrregcount=32", str(source), "-o", str(code)], check=True)
    (usage,) = usages(code)
    assert (usage.architecture, usage.name, usage.registers) == (90, "kernel", 32) and usage.stack > 0
