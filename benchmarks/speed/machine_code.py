"""How often each instruction of a CUDA kernel is executed, without a device.

`nvdisasm` gives the machine code with the line of the source that each instruction comes from. The emulator runs the
same source and counts what its warps load, store, exponentiate and wait for, line by line. The executions of the basic
blocks are those that agree best with these counts and with each other: what flows into a block flows out of it.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Place = tuple[str, int, str]
"""File, line and event: see EVENTS."""

EVENTS = (
    ("load", r"LDG?\b(?!GSTS)"),
    ("store", r"STG?\b"),
    ("shared_load", r"LDS\b"),
    ("shared_store", r"STS\b"),
    ("special", r"MUFU\.(EX2|LG2)"),
    ("barrier", r"BAR\."),
)
# Compilers merge loads as they like, and call the line of a merged one differently.
TRUST = {"load": 1.0, "store": 3.0, "shared_load": 0.1, "shared_store": 2.0, "special": 3.0, "barrier": 3.0}
ROUNDS = 6
WIDTHS = ((r"\.128\b", 16), (r"\.64\b", 8), (r"\.[US]8\b", 1), (r"\.[US]16\b", 2))
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_LINE = re.compile(r'//## File "([^"]+)", line (\d+)')
_TARGET = re.compile(r"`\((\.L[\w$]*)\)")


@dataclass
class Block:
    """A basic block: its instructions as (opcode, file, line), and the blocks that may follow."""

    instructions: list[tuple[str, str, int]] = field(default_factory=list)
    successors: list[int] = field(default_factory=list)
    leaves: bool = False
    """Whether the kernel may end here."""
    predicated: set[Place] = field(default_factory=set)
    """Events of some lanes alone, which are executed whether there is one or not."""
    rare: bool = False
    """Whether it calls what is taken for odd operands alone, such as a division of large 64-bit numbers."""


def disassemble(cubin: Path, nvdisasm: str) -> dict[str, list[Block]]:
    """The kernels of a cubin that was compiled with -lineinfo, by their mangled names."""
    listing = subprocess.run([nvdisasm, "-gi", "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    kernels = {}
    for section in re.split(r"^//-+ \.text\.", listing, flags=re.MULTILINE)[1:]:
        kernels[section.split(" ", 1)[0]] = _blocks(section)
    return kernels


def _blocks(section: str) -> list[Block]:
    blocks, labels, jumps = [Block()], dict[str, int](), list[tuple[int, str]]()
    place, chain, falls = ("", 0), False, True

    def begin() -> None:
        if blocks[-1].instructions or not falls:
            blocks.append(Block())
            if falls:
                blocks[-2].successors.append(len(blocks) - 1)

    for text in section.splitlines():
        if text.startswith("$"):  # functions that the kernel calls follow it
            break
        if found := _LINE.search(text):  # innermost first; CUDA's headers do not count
            if not chain or "/include/" in place[0]:
                place = (found[1], int(found[2]))
            chain = True
            continue
        chain = False
        if not text.strip():
            continue
        if found := re.match(r"(\.L[\w$]*):", text):
            begin()
            falls = True
            labels[found[1]] = len(blocks) - 1
        elif found := _INSTRUCTION.match(text):
            if not falls:
                begin()
            falls = True
            predicate, opcode, operands = found.groups()
            block = blocks[-1]
            block.instructions.append((opcode, *place))
            if predicate and (event := event_of(opcode)):
                block.predicated.add((*place, event[0]))
            if opcode.startswith("CALL"):
                block.rare = True
            elif opcode.startswith("EXIT"):
                block.leaves, falls = True, bool(predicate)
            elif opcode.startswith("BRA") and (target := _TARGET.search(operands)) and ".DIV" not in opcode:
                jumps.append((len(blocks) - 1, target[1]))
                falls = bool(predicate) or bool(re.match(r"!?U?P\d", operands))
                blocks.append(Block())
                if falls:
                    blocks[-2].successors.append(len(blocks) - 1)
                falls = True
    for source, label in jumps:
        if label in labels:
            blocks[source].successors.append(labels[label])
    return blocks


def event_of(opcode: str) -> tuple[str, int] | None:
    """The event that an instruction is for the emulator, and how much of it: bytes of a lane, or 1."""
    for event, pattern in EVENTS:
        if re.match(pattern, opcode):
            if event in ("special", "barrier"):
                return event, 1
            return event, next((bytes for suffix, bytes in WIDTHS if re.search(suffix, opcode)), 4)
    return None


def executions(blocks: Sequence[Block], counted: dict[Place, float]) -> np.ndarray:
    """How often a warp executes each block, on average; `counted` is what a warp did."""
    edges = [(-1, 0)]
    for i, block in enumerate(blocks):
        edges += [(i, j) for j in block.successors]
        if block.leaves:
            edges.append((i, -1))
    into = np.zeros((len(blocks), len(edges)))
    for e, (_, j) in enumerate(edges):
        if j >= 0:
            into[j, e] = 1
    sources = np.array([source for source, _ in edges])
    flow = [into[i] - (sources == i) for i in range(len(blocks))]
    into_rare = [into[i] for i, block in enumerate(blocks) if block.rare]
    fixed = 1e2 * np.vstack([np.eye(len(edges))[:1], *flow, *into_rare])
    right = np.concatenate([[1e2], np.zeros(len(fixed) - 1)])
    rows, values, trust = _anchors(blocks, counted)
    rows = rows @ into
    x, weights = np.zeros(len(edges)), trust
    for _ in range(ROUNDS):  # least absolute differences: what most lines say, not what one odd line says
        matrix = np.vstack([fixed, rows * weights[:, None], 1e-4 * np.eye(len(edges))])
        x = nonnegative(matrix, np.concatenate([right, values * weights, np.zeros(len(edges))]), x)
        off = np.abs(rows @ x - values) / np.maximum(values, 1.0)
        weights = trust / np.sqrt(off + 0.02)
    return into @ x


def _anchors(blocks: Sequence[Block], counted: dict[Place, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each place: how much of its event is in each block, how much a warp did, and the weight of that."""
    anchors: dict[Place, np.ndarray] = defaultdict(lambda: np.zeros(len(blocks)))
    for i, block in enumerate(blocks):
        for opcode, file, line in block.instructions:
            if found := event_of(opcode):
                anchors[file, line, found[0]][i] += found[1]
    for place in set().union(*(block.predicated for block in blocks)):
        del anchors[place]
    values = np.array([counted.get(place, 0.0) for place in anchors])
    trust = np.array([TRUST[place[2]] for place in anchors])
    trust = np.where(values > 0, trust, trust / 3) / np.maximum(values, 1.0) ** 0.5
    return np.array(list(anchors.values())), values, trust / np.array([row.max() ** 0.5 for row in anchors.values()])


def nonnegative(matrix: np.ndarray, wanted: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The x >= 0 that minimises |matrix x - wanted|, from a guess: the active-set method of Lawson and Hanson."""
    square, right = matrix.T @ matrix, matrix.T @ wanted
    used = x > 0
    tolerance = 1e-9 * np.abs(right).max()
    for _ in range(3 * len(right)):
        while used.any():
            step = np.zeros_like(x)
            step[used] = np.linalg.solve(square[np.ix_(used, used)], right[used])
            if step[used].min() > 0:
                x = step
                break
            falling = used & (step <= 0)
            share = (x[falling] / np.maximum(x[falling] - step[falling], 1e-300)).min()
            x = x + share * (step - x)
            used &= x > 1e-12
            x[~used] = 0
        slope = right - square @ x
        slope[used] = -np.inf
        if slope.max() <= tolerance:
            break
        used[slope.argmax()] = True
    return x


def lines_of(module: Path, offsets: Sequence[int]) -> list[tuple[str, str, int]]:
    """Function, file and line of places in a module of the host; of a call, whose return address is given."""
    if not offsets:
        return []
    done = subprocess.run(
        ["addr2line", "-f", "-C", "-e", str(module), *(hex(offset - 1) for offset in offsets)],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return [_place(function, place) for function, place in zip(done[::2], done[1::2], strict=True)]


def _place(function: str, place: str) -> tuple[str, str, int]:
    file, _, line = place.split(" ")[0].rpartition(":")
    return function, str(Path(file).resolve()), int(line) if line.isdigit() else 0


def mix(blocks: Sequence[Block], times: np.ndarray) -> dict[str, float]:
    """Executed instructions of a warp by opcode."""
    found: dict[str, float] = defaultdict(float)
    for block, count in zip(blocks, times, strict=True):
        for opcode, _, _ in block.instructions:
            found[opcode] += count
    return dict(found)


def places(profile: Sequence[tuple[int, int, str, int]], launch: int, module: Path, warps: float) -> dict[Place, float]:
    """What a warp of a launch did, line by line, from the emulator's profile."""
    own = [entry for entry in profile if entry[0] == launch]
    counted: dict[Place, float] = defaultdict(float)
    for (_, _, event, amount), (_, file, line) in zip(own, lines_of(module, [e[1] for e in own]), strict=True):
        counted[file, line, event] += amount / warps
    return dict(counted)
