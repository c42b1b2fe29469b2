"""How long Triton's pseudo-labels take on an H200, predicted from their machine code; no device is needed.

    python -m benchmarks.speed.triton_labels    # some minutes: both forms are compiled for sm_90

No emulator counts Triton's kernels. What their warps load, store and exponentiate follows from the shape: it is written
down here, line by line of the kernels, and machine_code.py finds the executions of the basic blocks that agree with it.
Logits are taken to be such that no tile is done again with maxima.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import machine_code
from benchmarks.speed.gpu_model import Launch, launch_of, predicted_us
from benchmarks.speed.machine_code import Block, Place
from benchmarks.speed.ops_cases import GPU_SCALES, GPU_SHAPES

ARCHITECTURE = 90
KERNELS = Path(__file__).resolve().parents[2] / "maskmatch" / "ops" / "triton"
SERIES, TILE, SHIFT = (
    KERNELS / f"_{name}.py" for name in ("pseudo_label_series", "pseudo_label_tile", "shifted_logits")
)


@dataclass(frozen=True)
class Compiled:
    """A kernel as it would be launched: its machine code, resources, grid and constant arguments."""

    name: str
    blocks: list[Block]
    registers: int
    shared: int
    warps: int
    grid: int
    constants: dict[str, Any]


def compiled(shape: str, form: str) -> list[Compiled]:
    """The kernels that label a batch of one of GPU_SHAPES in one form, `series` or `general`."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from maskmatch.ops.triton import multiscale_pseudo_label as labels

    class Target:
        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", ARCHITECTURE, 32)

    (count, classes, side), stride = GPU_SHAPES[shape]
    sides = [round(side // stride * scale) for scale in GPU_SCALES]
    found = []
    launch, chosen, active = JITFunction.run, labels.form_of, driver._active

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
        found.append(_read(kernel, grid[0], dict(zip(self.arg_names, args, strict=True))))

    JITFunction.run, labels.form_of, driver._active = compile_only, lambda *_: form, Target()
    try:
        logits = [torch.empty(count, classes, s, s) for s in sides]
        third = [1 / len(sides)] * len(sides)
        labels.multiscale_pseudo_label(logits, side, side, [0] * len(sides), third, "probability", False)
    finally:
        JITFunction.run, labels.form_of, driver._active = launch, chosen, active
    return found


def _read(kernel: Any, grid: int, constants: dict[str, Any]) -> Compiled:
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        (blocks,) = machine_code.disassemble(cubin, knobs.nvidia.nvdisasm.path).values()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(cubin)]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (registers,) = re.findall(r"REG:(\d+)", usage)
    metadata = kernel.metadata
    return Compiled(metadata.name, blocks, int(registers), metadata.shared, metadata.num_warps, grid, constants)


def line(file: Path, text: str) -> tuple[str, int]:
    """The one line of a kernel that has this text."""
    (number,) = [i for i, found in enumerate(file.read_text().split("\n"), 1) if text in found]
    return str(file), number


def counted(kernel: Compiled) -> dict[Place, float]:
    """What a warp does on average: bytes a lane loaded and stored, exponentials."""
    given = kernel.constants
    if kernel.name == "shift_kernel":
        values = given["BLOCK_NODES"] * given["BLOCK_CLASSES"] / (32 * kernel.warps)  # of a thread
        read = values * math.ceil(given["classes"] / given["BLOCK_CLASSES"])
        written = values * math.ceil((given["PITCH"] or given["classes"]) / given["BLOCK_CLASSES"])
        return {
            (*line(SHIFT, "mask=present, other=-float"), "load"): 4 * read,
            (*line(SHIFT, "(c < classes), other=0.0)"), "load"): 4 * written,
            (*line(SHIFT, "tl.store("), "store"): 4 * written,
        }
    if kernel.name == "pseudo_label_series_kernel":
        rows, height = given["ROWS"], given["height"]
        begun = given["OWN"] * sum(cells_of_a_strip(h, height, rows) for h in given["heights"])
        return {
            (*line(SERIES, "powers += (tl.exp2("), "special"): begun,
            (*line(SERIES, "ratios += (tl.exp2("), "special"): begun,
            (*line(SHIFT, "return blend("), "load"): 4 * 4 * begun,
            (*line(SERIES, "tl.store(label"), "store"): rows,
            (*line(SERIES, "tl.store(confidence"), "store"): 4 * rows,
        }
    values = given["ROWS"] * given["COLUMNS"] / (32 * kernel.warps)
    powers = given["classes"] * len(given["heights"]) * values
    columns = given["COLUMNS"] / (32 * kernel.warps)
    return {
        (*line(TILE, "total += tl.exp2("), "special"): powers,
        (*line(TILE, "shares[g] * tl.exp2("), "special"): powers,
        (*line(SHIFT, "return blend("), "load"): 2 * 2 * 4 * given["classes"] * columns * sum(given["LEVELS"]),
        (*line(TILE, "tl.store(label"), "store"): values,
        (*line(TILE, "tl.store(confidence"), "store"): 4 * values,
    }


def cells_of_a_strip(inputs: int, outputs: int, rows: int) -> float:
    """How often a strip of so many rows passes an input row, its first row counted, on average."""
    cells = [min(math.floor((o + 0.5) * inputs / outputs - 0.5), inputs - 1) for o in range(outputs)]
    strips = [cells[first : first + rows] for first in range(0, outputs, rows)]
    return sum(len(set(strip)) for strip in strips) / len(strips)


def executed(kernel: Compiled) -> dict[str, float]:
    """A warp's instructions by opcode."""
    maxima = line(TILE, "top = tl.maximum(")[1]
    for block in kernel.blocks:
        block.predicated.clear()  # a masked access is executed for the other lanes
        block.rare |= any(
            file == str(TILE) and maxima <= number <= maxima + 2 for _, file, number in block.instructions
        )
    return machine_code.mix(kernel.blocks, machine_code.executions(kernel.blocks, counted(kernel)))


def launches(shape: str, form: str) -> Iterator[tuple[Launch, dict[str, float]]]:
    for kernel in compiled(shape, form):
        mix = executed(kernel)
        yield launch_of(kernel.name, kernel.grid, 32 * kernel.warps, kernel.registers, kernel.shared, mix), mix


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for shape in sys.argv[1:] or GPU_SHAPES:
            (count, classes, side), stride = GPU_SHAPES[shape]
            for form in ("general", "series"):
                found = list(launches(shape, form))
                exponentials = sum(mix.get("MUFU.EX2", 0.0) * f.blocks * f.warps * 32 for f, mix in found)
                print(
                    f"{count}x{classes}x{side}/{stride} {form:7} {predicted_us([f for f, _ in found]):6.1f} us, "
                    f"{exponentials / (count * classes * side * side * len(GPU_SCALES)):.2f} exponentials a pixel, "
                    f"class and scale; {', '.join(f'{f.issued:.0f} x {f.blocks * f.warps}' for f, _ in found)} "
                    f"instructions x warps, {', '.join(str(f.registers) for f, _ in found)} registers",
                    flush=True,
                )


if __name__ == "__main__":
    main()
