"""A trained model as one file: torch.export or ONNX, and the proof that it says what the model says."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from timm.layers import padding
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from maskmatch.data import format_palette
from maskmatch.errors import UserError
from maskmatch.evaluation.inference import normalized
from maskmatch.models import Student
from maskmatch.trained import TrainedModel

Format = Literal["onnx", "torch_export"]
TOLERANCE = 1e-4
"""How far logits may be from the trained model's, relative to their size where that is above 1."""
LONGEST_SIDE = 8192
LARGEST_BATCH = 256


class Deployed(nn.Module):
    """uint8 images [N, 3, H, W], RGB -> float32 logits [N, C, H, W]."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        self.network = student.network

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(normalized(images, self.student))
        return F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=self.student.align_corners)


def write(model: TrainedModel, kind: Format, path: Path) -> None:
    """Write the file; the model must be on the CPU.

    Whatever the exporters raise is passed on, for a network that cannot be exported for every size.
    """
    program = _program(model)
    if kind == "torch_export":
        with _quiet():
            torch.export.save(program, path, extra_files={"metadata.json": json.dumps(metadata(model))})
        return
    with _quiet():
        exported = torch.onnx.export(
            program.run_decompositions(FOR_ONNX),
            input_names=["images"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
    assert exported is not None  # noqa: S101 - it is, without a path to write to
    exported.model.metadata_props.update({name: _text(value) for name, value in metadata(model).items()})
    exported.save(path)


def metadata(model: TrainedModel) -> dict[str, object]:
    """What whoever runs the file needs to know; ONNX holds every value as text, lists as JSON."""
    multiple, least = sizes(model.student)
    return {
        "class_names": list(model.class_names),
        "palette": format_palette(model.palette),
        "input": "images: uint8 [N, 3, H, W], RGB",
        "output": "logits: float32 [N, C, H, W]",
        "size_multiple": multiple,
        "min_size": least,
        "weights": f"{model.weights} of {model.checkpoint.name}",
    }


def check(model: TrainedModel, kind: Format, path: Path) -> float:
    """Run the written file on random images of three sizes; returns the largest difference of a logit.

    Raises:
        UserError: it differs from the trained model by more than TOLERANCE.
    """
    run = _runner(kind, path)
    expected_of = Deployed(model.student)
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for shape in check_shapes(model):
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        with torch.no_grad():
            expected = expected_of(images)
        found = run(images)
        difference = (found - expected).abs().max().item() / max(1.0, expected.abs().max().item())
        if found.shape != expected.shape or not difference <= TOLERANCE:
            raise UserError(
                f"the exported file differs from the trained model by {difference:.1e} at images {list(shape)}, "
                f"expected at most {TOLERANCE}; it was not kept"
            )
        largest = max(largest, difference)
    return largest


def check_shapes(model: TrainedModel) -> list[tuple[int, int, int, int]]:
    """Three sizes and batches: the smallest, and the training crop's, wider and higher."""
    step, least = sizes(model.student)
    height, width = (max(least, round(side / step) * step) for side in model.crop_size)
    return [(1, 3, least, least), (2, 3, height, width + 2 * step), (3, 3, height + 3 * step, width + step)]


def sizes(student: Student) -> tuple[int, int]:
    """The multiple that heights and widths of the file's images must be of, and the smallest of them.

    Multiples of the encoder's stride even where the network takes any size (Unet and its kin), since exporters do not
    see that odd sizes, halved and doubled, fit each other; and twice the smallest, since they take for granted
    that a size which is free is not 1, that of the coarsest features among them.
    """
    encoder: Any = student.network.encoder
    multiple = math.lcm(student.size_multiple, encoder.output_stride)
    return multiple, 2 * math.ceil(student.min_size / multiple) * multiple


def _program(model: TrainedModel) -> ExportedProgram:
    step, least = sizes(model.student)
    sides = {
        axis: step * Dim(name, min=least // step, max=LONGEST_SIDE // step)
        for axis, name in ((2, "rows"), (3, "columns"))
    }
    batch, channels, height, width = check_shapes(model)[2]
    example = torch.zeros(batch, channels, height, width, dtype=torch.uint8)
    with _quiet(), _same_padding_of_multiples(), torch.no_grad():
        return torch.export.export(
            Deployed(model.student).eval(),
            (example,),
            dynamic_shapes={"images": {0: Dim("batch", min=1, max=LARGEST_BATCH), **sides}},
        )


def _adaptive_average_pool(images: Tensor, size: tuple[int, int]) -> Tensor:
    """`F.adaptive_avg_pool2d` as two products of matrices.

    ONNX has no such operator, and what PyTorch writes for it fits the example's height and width alone.
    """
    return _averages(images.shape[2], size[0]) @ images @ _averages(images.shape[3], size[1]).T


def _averages(side: int, bins: int) -> Tensor:
    """float32 [bins, side]: row i takes the mean over the cells of bin i, which neighbouring bins may share."""
    cells, index = torch.arange(side), torch.arange(bins)[:, None]
    first, end = index * side // bins, ((index + 1) * side + bins - 1) // bins
    inside = ((first <= cells) & (cells < end)).float()
    return inside / inside.sum(1, keepdim=True)


FOR_ONNX = {torch.ops.aten.adaptive_avg_pool2d.default: _adaptive_average_pool}


@contextlib.contextmanager
def _same_padding_of_multiples() -> Iterator[None]:
    """Have timm's `same` padding rely on sides being multiples of the stride, as `size_multiple` sees to.

    Then it is a number. Otherwise the sizes, which are symbols here, become longer with every layer, and tracing a
    deep network does not end. `check` would find out if some side were no multiple.
    """

    def padding_of(_size: int, kernel_size: int, stride: int, dilation: int) -> int:
        return max((kernel_size - 1) * dilation + 1 - stride, 0)

    theirs = padding.get_same_padding
    padding.get_same_padding = padding_of  # type: ignore[assignment]
    try:
        yield
    finally:
        padding.get_same_padding = theirs


def _runner(kind: Format, path: Path) -> Callable[[Tensor], Tensor]:
    """The written file as a function, by what it is deployed with."""
    if kind == "torch_export":
        module = torch.export.load(path).module()
        return lambda images: module(images)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters think aloud; what fails is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
