"""Mistakes made on purpose in the CUDA kernels, each of which the checks below must catch.

`python -m tests.csrc.mutants` builds every mutant for the emulator and says what caught it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from maskmatch.ops import reference
from tools.emulator import emulated


@dataclass(frozen=True)
class Mutant:
    name: str
    kernel: str
    old: str
    new: str


MUTANTS = [
    Mutant("barrier before the groups are counted removed", "patch_mask",
           "group_sizes[threadIdx.x] = 0;\n  __syncthreads();", "group_sizes[threadIdx.x] = 0;"),
    Mutant("barrier before the keys are compared removed", "patch_mask",
           "  __syncthreads();\n  for (int i = warp;", "  for (int i = warp;"),
    Mutant("barrier before the patches' use removed", "patch_mask",
           "= lower < hidden;\n  }\n  __syncthreads();", "= lower < hidden;\n  }"),
    Mutant("rank that is the first visible one's hidden", "patch_mask", "[patch] = lower < hidden;",
           "[patch] = lower <= hidden;"),
    Mutant("the index no part of the key", "patch_mask",
           "distinct_key(ranks.keys[other], other) < distinct_key(key, patch)", "ranks.keys[other] < key"),
    Mutant("the grid written by two blocks", "patch_mask", "patch + (first.in_patch > 0) * args.columns", "patch"),
    Mutant("the last block's bands not cut off", "patch_mask", "min(all.bands - place, int64_t{all.bands_a_block})",
           "int64_t{all.bands_a_block}"),
    Mutant("barrier before the count removed", "patch_mask",
           "agreeing[threadIdx.x] = 0;\n    __syncthreads();", "agreeing[threadIdx.x] = 0;"),
    Mutant("barrier after the count removed", "patch_mask",
           "    __syncthreads();\n    if (threadIdx.x < 32) {", "    if (threadIdx.x < 32) {"),
    Mutant("one patch too many hidden", "patch_mask", ">> shift < first_visible", ">> shift <= first_visible"),
    Mutant("last digit not told to the block", "patch_mask",
           "    __syncthreads();\n    first_visible =", "    first_visible ="),
    Mutant("keys of lower lanes not counted", "patch_mask", "if (threadIdx.x & lanes) lower += others;", ""),
    Mutant("last elements not checked", "patch_mask", "if (i < inside) row[i * step] =", "row[i * step] ="),
    Mutant("numbers past the last one drawn", "uniform", "  if (index >= args.rows * groups) return;\n", ""),
    Mutant("wrong stride of the result", "pseudo_label_series_of_three",
           "first_pixel + row * labels.width + column", "first_pixel + row * labels.height + column"),
    Mutant("rows past the last one stored", "pseudo_label_series_of_three",
           "min(strip_end, tile.bottom - tile.top)", "strip_end"),
    Mutant("columns past the last one stored", "pseudo_label_series_of_three", "inside ? across : -1", "across"),
    Mutant("weights of the two rows swapped", "pseudo_label_series_of_three",
           "exp2f(fmaf(fraction, slope, top))", "exp2f(fmaf(1 - fraction, slope, top))"),
    Mutant("flips ignored", "pseudo_label_series_of_three",
           "labels.scales[s].flipped ? labels.width - 1 - column : column", "column"),
    Mutant("series never begun anew", "pseudo_label_series_of_three",
           "max(first, strip_top)", "strip_top"),
    Mutant("series of rows before the first input", "pseudo_label_series_of_three",
           "before ? 0 : static_cast<float>(axis.scale)", "static_cast<float>(axis.scale)"),
    Mutant("barrier between the halves of the staging removed", "pseudo_label_series_of_three",
           "if (kLanes > 1) {\n      __syncthreads();", "if (kLanes > 1) {"),
    Mutant("one of the lanes left out", "pseudo_label_series_of_three",
           "value += __shfl_xor_sync(~0u, value, lanes)", "value += __shfl_xor_sync(~0u, value, 2 * lanes)"),
    Mutant("hidden classes not looked for", "pseudo_label_series_of_three",
           "__syncthreads_or(hidden_in_places(args.labels.classes))", "false"),
    Mutant("weights of the two rows swapped, in general", "multiscale_pseudo_label",
           "return top[k] + fraction * step[k];", "return top[k] + (1 - fraction) * step[k];"),
    Mutant("rows past the last one stored, in general", "multiscale_pseudo_label",
           "if (strip.row + r < args.height) {", "{"),
    Mutant("barrier before the gathering removed", "upsample_cross_entropy",
           "__syncthreads();\n      gather(", "gather("),
    Mutant("barrier after the gathering removed", "upsample_cross_entropy",
           "gather(args, tile, round, first, exchange);\n      __syncthreads();",
           "gather(args, tile, round, first, exchange);"),
    Mutant("a barrier that some threads skip", "upsample_cross_entropy",
           "if (!__syncthreads_or(pixels.any)) continue;", "if (!pixels.any) continue;"),
    Mutant("weights of the two columns swapped", "upsample_cross_entropy",
           "(i < left + middle ? fraction : 1 - fraction)", "(i < left + middle ? 1 - fraction : fraction)"),
    Mutant("last column of a tile forgotten", "upsample_cross_entropy",
           "thread <= x_end - x_first", "thread < x_end - x_first"),
    Mutant("pixels between tiles counted twice", "upsample_cross_entropy",
           "strip.low >= tile.top && sample.low >= tile.left", "true"),
    Mutant("barrier before the corners are gathered removed", "cross_entropy_series_4x8",
           "    __syncthreads();\n    gatherer.write(", "    gatherer.write("),
    Mutant("barrier before the next classes' corners removed", "cross_entropy_series_4x8",
           "if (first > 0 || !all_staged) __syncthreads();", ""),
    Mutant("barrier after the elements are read removed", "cross_entropy_series_4x8",
           "elements.stage(first, chunk);\n    __syncthreads();", "elements.stage(first, chunk);"),
    Mutant("cells between tiles counted twice", "cross_entropy_series_4x8",
           "inside && (down > 0 || tile.first_down) && (across > 0 || tile.first_across)", "inside"),
    Mutant("pixels of the next cell taken", "cross_entropy_series_4x8", "k < columns ? column << k * kDown : 0",
           "column << k * kDown"),
    Mutant("some lanes of a cell left out", "cross_entropy_series_4x8", "int lanes = 4; lanes", "int lanes = 8; lanes"),
    Mutant("the left and the right corner swapped", "cross_entropy_series_4x8",
           "plane[right * args.memory.plane]", "plane[!right * args.memory.plane]"),
    Mutant("pixels before the first element in its cell", "cross_entropy_series_4x8",
           "if (i > 0 || axis.offset >= 0) return", "return"),
    Mutant("a series' ratio the same in all columns", "cross_entropy_series_4x8",
           "place.both_step = place.across_step * place.down_step", "place.both_step = 0"),
    Mutant("the class left out summed up, too", "cross_entropy_series_4x8", "if (left_out) power = 0;", ""),
    Mutant("deep cells not looked for", "cross_entropy_series_4x8", "if (!(lowest.lowest() < limit)) return false;",
           "return false;"),
    Mutant("half of the warp's sums lost", "upsample_cross_entropy", "int offset = 16;", "int offset = 8;"),
]  # fmt: skip


# Those that include others first.
HEADERS = (
    "patch_grid.cuh",
    "cross_entropy_general.cuh",
    "cross_entropy_series.cuh",
    "cross_entropy_corners.cuh",
    "cross_entropy_worker.cuh",
    "cross_entropy_cells.cuh",
    "cross_entropy_patch.cuh",
    "cross_entropy_surface.cuh",
    "cross_entropy_gradient.cuh",
    "cross_entropy_strip.cuh",
    "cross_entropy_sums.cuh",
    "cross_entropy_tile.cuh",
    "pseudo_label_series.cuh",
    "pseudo_label_staging.cuh",
    "pseudo_label_general.cuh",
    "resized.cuh",
)


def source_of(kernel: str) -> str:
    """A kernel with the headers of its arithmetic, so that these can be mutated too."""
    folder = emulated.CSRC / "cuda"
    source = (folder / f"{kernel}.cu").read_text()
    for header in HEADERS:
        line, text = f'#include "{header}"', (folder / header).read_text().replace("#pragma once", "")
        source = source.replace(line, text, 1).replace(line, "")
    return source


def build(mutant: Mutant, folder: Path, variant: str = "checked") -> emulated.Emulated:
    source = source_of(mutant.kernel)
    if source.count(mutant.old) != 1:
        raise ValueError(f"mutant {mutant.name!r} fits {source.count(mutant.old)} places of {mutant.kernel}.cu")
    changed = folder / f"{mutant.kernel}.cu"
    changed.write_text(source.replace(mutant.old, mutant.new))
    kernels = [changed if path.name == changed.name else path for path in emulated.KERNELS]
    return emulated.Emulated(emulated.load_module(emulated.build(variant, kernels, folder)))


def check(emulator: emulated.Emulated) -> None:
    """Small cases of every operator against the reference; raises on the first difference or report."""
    generator = torch.Generator().manual_seed(0)
    emulator.module.set_thread_order(1)
    # Elements that are not aligned, several blocks an image, of one plane and of three, and a kernel for the patches.
    for size, layout, patch in (
        ((37, 35), torch.contiguous_format, 2),
        ((97, 256), torch.channels_last, 20),
        ((97, 320), torch.contiguous_format, 20),
        ((71, 67), torch.channels_last, 1),
    ):
        images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=generator)
        for strategy in ("random", "grid"):
            mask = (images.to(memory_format=layout), patch, 0.4, torch.tensor([5, 6]), strategy)
            mask += ([0.5] * 3, [0.2] * 3, [0.1] * 3)
            compare(emulator.patch_mask(*mask), reference.patch_mask(*mask))

    seeds = torch.arange(70) - 2**40
    compare((emulator.uniform(seeds, 9, 3),), (reference.uniform(seeds, 9, 3),))

    for classes, average in ((5, "probability"), (5, "logit"), (25, "probability")):
        scales = [torch.randn(2, classes, *size, generator=generator) for size in ((6, 7), (9, 4))]
        scales[0][1, 3, 2:4] = -1e4
        label = (scales, 37, 33, [False, True], [0.25, 0.75], average, False)
        compare(emulator.multiscale_pseudo_label(*label), reference.multiscale_pseudo_label(*label))

    target = torch.randint(0, 5, (2, 41, 130), generator=generator)
    confidence = torch.rand(target.shape, generator=generator)
    confidence[:, :, 30:90] = 0  # a part without any confident pixel
    options = (target, confidence, 0.5, None, None, 255, 0.1, False)
    # Cells of one, two and many lanes, classes in one go and in several, and what the fast form does not take.
    for classes, *size in ((5, 10, 65), (5, 6, 17), (5, 2, 9), (30, 10, 65), (5, 41, 66)):
        logits = torch.randn(2, classes, *size, generator=generator)
        logits[0, 3, 1:2] = -300
        logits.requires_grad_()
        for normalize in ("all", "confident", "none"):
            results = []
            for function in (emulator.upsample_cross_entropy, reference.upsample_cross_entropy):
                loss = function(logits, *options, normalize, None)
                scale = 1 if normalize == "none" else target.numel()  # as the tolerance is an absolute one too
                results.append((loss.detach(), *torch.autograd.grad(scale * loss.sum(), logits)))
            compare(*results)


def compare(got: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def caught_by(mutant: Mutant) -> str | None:
    """What caught a mutant, None if nothing did."""
    with tempfile.TemporaryDirectory() as folder:
        emulator = build(mutant, Path(folder))
        try:
            check(emulator)
        except (RuntimeError, AssertionError) as error:
            return str(error).splitlines()[0]
    return None


def main() -> None:
    check(emulated.load())
    for mutant in MUTANTS:
        print(f"{mutant.kernel}: {mutant.name}: {caught_by(mutant) or 'NOT CAUGHT'}", flush=True)


if __name__ == "__main__":
    main()
