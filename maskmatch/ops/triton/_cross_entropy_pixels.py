"""What upsample_cross_entropy reads of a pixel."""

from __future__ import annotations

import triton
import triton.language as tl

UNSPECIALIZED = [
    *("count", "classes", "input_height", "input_width", "height", "width"),
    *("threshold", "ignore_index", "label_smoothing"),
]
"""Arguments of the kernels for whose values none is compiled anew."""


@triton.jit
def read_pixels(
    line, x, inside, target, confidence, pixel_weight, class_weight, classes, threshold, ignore_index
):  # fmt: skip
    """Label (-1 where there is none), whether it counts, whether it is confident, its weight and its class's weight.

    line: offset of a row of pixels in the maps; x: pixels of it; inside: which of them exist.
    """
    label = tl.load(target + line + x, mask=inside, other=0).to(tl.int64)
    valid = inside & (label != ignore_index)
    known = (label >= 0) & (label < classes)
    tl.device_assert(known | (valid == 0), "target must hold classes or ignore_index")
    label = tl.where(valid & known, label, -1).to(tl.int32)
    kept = valid
    if confidence is not None:
        kept = kept & (tl.load(confidence + line + x, mask=inside, other=0.0) >= threshold)
    weight = tl.where(kept, 1.0, 0.0)
    if pixel_weight is not None:
        weight = tl.where(kept, tl.load(pixel_weight + line + x, mask=inside, other=0.0), 0.0)
    label_weight = tl.where(label >= 0, 1.0, 0.0)
    if class_weight is not None:
        label_weight = tl.load(class_weight + label, mask=label >= 0, other=0.0)
    return label, valid, kept, weight, label_weight
