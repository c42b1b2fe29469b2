"""The CUDA kernels that a call launches, with what their warps execute: what gpu_model.py needs.

nvcc compiles the kernels for sm_90 as CMakeLists.txt does, Triton's package has the disassembler, and the emulator runs
the call.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.speed import machine_code
from benchmarks.speed.gpu_model import Launch, launch_of
from benchmarks.speed.machine_code import Block

FLAGS = ("-O3", "-DNDEBUG", "-std=c++17", "--ftz=true", "-lineinfo", "-arch=sm_90", "-Xptxas=-v", "-cubin")
H200 = 2  # of emulator.h's devices
# Launched once, whatever the number of images.
ONCE = ("sum_blocks",)


@dataclass(frozen=True)
class Kernel:
    blocks: list[Block]
    registers: int
    shared: int


class Kernels:
    """The kernels of .cu files, compiled when they are first needed."""

    def __init__(self, sources: list[Path], nvcc: str) -> None:
        self.sources, self.nvcc = sources, nvcc

    @cached_property
    def compiled(self) -> dict[str, Kernel]:
        import triton

        found = {}
        with tempfile.TemporaryDirectory() as folder:
            for source in self.sources:
                cubin = Path(folder) / "kernels.cubin"
                command = [self.nvcc, *FLAGS, str(source), "-o", str(cubin)]
                report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
                usage = re.findall(r"entry function '(\w+)'.*?Used (\d+) registers([^\n]*)\n", report, re.DOTALL)
                code = machine_code.disassemble(cubin, triton.knobs.nvidia.nvdisasm.path)
                names = _demangled([name for name, _, _ in usage])
                for name, (mangled, registers, rest) in zip(names, usage, strict=True):
                    shared = re.search(r"(\d+) bytes smem", rest)
                    found[_plain(name)] = Kernel(code[mangled], int(registers), int(shared[1]) if shared else 0)
        return found

    def launches(self, emulator: Any, call: Callable[[], Any], images: int = 1) -> list[Launch]:
        """What `call` on one image launches, as it would be for so many images; the emulator is "profiled"."""
        module = Path(emulator.module.__file__)
        emulator.module.set_device(H200, images)
        emulator.module.take_launches()
        emulator.module.profile()
        call()
        emulator.module.set_device(0)
        profile, launched = emulator.module.take_profile(), emulator.module.take_launches()
        result = []
        for index, (threads, dynamic_shared, blocks, place) in enumerate(launched):
            name = _plain(machine_code.lines_of(module, [place + 1])[0][0])
            kernel = self.compiled[name]
            counted = machine_code.places(profile, index, module, blocks * -(-threads // 32))
            mix = machine_code.mix(kernel.blocks, machine_code.executions(kernel.blocks, counted))
            shared = kernel.shared + dynamic_shared
            launch = launch_of(name, blocks, threads, kernel.registers, shared, mix)
            result.append(launch if name in ONCE else replace(launch, blocks=blocks * images))
        return result


def _demangled(names: list[str]) -> list[str]:
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[: len(names)]


def _plain(name: str) -> str:
    """A kernel's name with its template arguments, however its compiler writes them."""
    name = re.sub(r"maskmatch::(?:cuda::)?|[(]anonymous namespace[)]::|^void ", "", name)
    name = re.sub(r"[(]\w+[)](?=\d)", "", name)  # of an enumeration
    return name.split("(")[0].replace(" ", "")
