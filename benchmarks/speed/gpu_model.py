"""How long CUDA kernels take on an H200, predicted from what they execute.

    python -m benchmarks.speed.gpu_model    # the readings of a device beside the predictions

A warp's instructions are counted by machine_code.py. A multiprocessor issues four a clock at best; half as many of
those that add integers or compare, an eighth as many exponentials and conversions, and one access to shared or global
memory, of 128 bytes. The scarcest of these, over `efficiency`, is what its warps cost together. A warp that waits costs
cycles too: for what it loads and at barriers. Both are added in squares, as the larger one hides most of the smaller.
Thread blocks run in waves of as many as registers, shared memory and warps allow. No kernel is faster
than a copy of its bytes.

The four constants are a least-squares fit to the readings of two shapes in gpu_readings.json; `--fit` repeats it. The
model knows no caches: kernels whose loads miss the first-level cache take longer than it says.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

READINGS = Path(__file__).with_name("gpu_readings.json")
FITTED_TO = ("8x21x320/8", "4x19x800/8")

# H200: streaming multiprocessors, and megahertz while it computes.
SMS, CLOCK = 132, 1755.0
BYTES_A_US = 4.24e6  # of a copy between tensors that the second-level cache does not hold, as read
SM_WARPS, SM_BLOCKS, SM_REGISTERS, SM_SHARED = 64, 32, 65536, 228 << 10

CONVERSIONS = ("MUFU", "I2F", "F2I", "F2F", "POPC", "FLO")
FULL_RATE = (
    "FADD",
    "FMUL",
    "FFMA",
    "IMAD",
    "MOV",
    "HFMA2",
    "LDC",
    "NOP",
    "S2R",
    "CS2R",
    "EXIT",
    "BRA",
    "BSSY",
    "BSYNC",
)


@dataclass(frozen=True)
class Constants:
    """What was fitted: a share, two waits in cycles, and the microseconds between two launches of a graph."""

    efficiency: float
    load_cycles: float
    barrier_cycles: float
    launch_us: float


FITTED = Constants(0.693, 25.1, 1590.0, 4.11)


@dataclass(frozen=True)
class Launch:
    """A launch, and what each of its warps executes on average."""

    kernel: str
    blocks: int
    threads: int
    registers: int
    shared: int
    issued: float
    half_rate: float
    conversions: float
    accesses: float
    """To shared or global memory, in units of 4 bytes a lane."""
    loads: float
    """From global memory."""
    barriers: float

    @property
    def warps(self) -> int:
        return -(-self.threads // 32)

    def resident(self) -> int:
        """Blocks that an SM runs at a time; registers go to warps by 256, and to four warps at a time."""
        registers = SM_REGISTERS // (-(-self.registers * 32 // 256) * 256) // 4 * 4 // self.warps
        shared = SM_SHARED // (-(-(self.shared + 1024) // 256) * 256)
        return max(1, min(SM_BLOCKS, SM_WARPS // self.warps, registers, shared))


def launch_of(kernel: str, blocks: int, threads: int, registers: int, shared: int, mix: Mapping[str, float]) -> Launch:
    """A launch whose warps execute so many instructions of each opcode."""
    half_rate = conversions = accesses = loads = barriers = 0.0
    for opcode, count in mix.items():
        name = opcode.split(".")[0]
        if name in CONVERSIONS:
            conversions += count
        elif name in ("LDS", "STS", "LDG", "STG", "SHFL", "ATOMS", "ATOMG"):
            accesses += count * (4 if ".128" in opcode else 2 if re.search(r"\.64\b", opcode) else 1)
            loads += count * (name == "LDG")
        elif name == "BAR":
            barriers += count
        elif name not in FULL_RATE and not name.startswith("U"):
            half_rate += count
    numbers = (sum(mix.values()), half_rate, conversions, accesses, loads, barriers)
    return Launch(kernel, blocks, threads, registers, shared, *(round(float(number), 1) for number in numbers))


def launch_us(launch: Launch, constants: Constants = FITTED) -> float:
    """Microseconds of a launch in a graph."""
    scarcest = max(launch.issued, 2 * launch.half_rate, 8 * launch.conversions, 4 * launch.accesses)
    waits = launch.loads * constants.load_cycles + launch.barriers * constants.barrier_cycles

    def wave(blocks: int) -> float:
        warps_a_scheduler = max(blocks * launch.warps / 4, 1.0) if blocks else 0.0
        return math.hypot(warps_a_scheduler * scarcest / constants.efficiency, waits if blocks else 0.0)

    resident = launch.resident()
    waves, rest = divmod(-(-launch.blocks // SMS), resident)
    if waves >= 4:  # blocks no longer start together
        cycles = wave(resident) * launch.blocks / (SMS * resident)
    else:
        cycles = waves * wave(resident) + wave(rest)
    return constants.launch_us + cycles / CLOCK


def predicted_us(
    launches: Sequence[Launch], constants: Constants = FITTED, other_launches: int = 0, least_bytes: int = 0
) -> float:
    """Microseconds of launches that follow each other in a graph, and of small ones of torch."""
    least_us = len(launches) * constants.launch_us + least_bytes / BYTES_A_US
    executed_us = sum(launch_us(launch, constants) for launch in launches)
    return max(executed_us, least_us) + other_launches * constants.launch_us


@dataclass(frozen=True)
class Reading:
    """A time of a device, of launches whose counts are known."""

    case: str
    shape: str
    kernels: str
    """`landed` is the product of the first day, `series` that of the next, `trial` what was tried beside `landed`."""
    measured_us: float
    other_launches: int
    launches: tuple[Launch, ...]

    def predicted_us(self, constants: Constants = FITTED) -> float:
        return predicted_us(self.launches, constants, self.other_launches)


def readings() -> list[Reading]:
    found = json.loads(READINGS.read_text())["readings"]
    return [Reading(**r | {"launches": tuple(Launch(**launch) for launch in r["launches"])}) for r in found]


def fit(known: Sequence[Reading]) -> Constants:
    """The constants whose predictions differ least in their logarithms: each in turn is moved while that helps."""

    def error(values: Sequence[float]) -> float:
        constants = Constants(*values)
        return sum(math.log(reading.predicted_us(constants) / reading.measured_us) ** 2 for reading in known)

    values, step = [0.7, 50.0, 1000.0, 2.0], 0.3
    least = error(values)
    while step > 1e-4:
        before = least
        for i in range(len(values)):
            for factor in (1 + step, 1 / (1 + step)):
                tried = [*values[:i], values[i] * factor, *values[i + 1 :]]
                if (found := error(tried)) < least:
                    values, least = tried, found
        if least == before:
            step /= 2
    return Constants(*(float(f"{value:.3g}") for value in values))


def main() -> None:
    known = readings()
    if "--fit" in sys.argv[1:]:
        print(fit([reading for reading in known if reading.shape in FITTED_TO]))
    for reading in known:
        predicted = reading.predicted_us()
        used = "fitted to" if reading.shape in FITTED_TO else ""
        print(
            f"{reading.case:8} {reading.shape:14} {reading.kernels:8} measured {reading.measured_us:7.1f} us "
            f"predicted {predicted:7.1f}  {predicted / reading.measured_us:5.2f}  {used}"
        )


if __name__ == "__main__":
    main()
