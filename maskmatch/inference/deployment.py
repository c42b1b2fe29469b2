"""A trained model as one file: torch.export or ONNX, and the proof that it says what the model says."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import sympy
import torch
import torch.fx.experimental._config as symbolic_shapes_config
from timm.layers import padding
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F
from torch.utils._sympy.value_ranges import ValueRanges

from maskmatch.common.errors import UserError
from maskmatch.common.normalization import normalized
from maskmatch.data import format_palette
from maskmatch.inference.trained_model import TrainedModel
from maskmatch.models import Student

Format = Literal["onnx", "torch_export"]
TOLERANCE = 1e-4
"""How far logits may be from the trained model's, relative to their size where that is above 1."""
SHORTEST_SIDE, LONGEST_SIDE = 2, 8192
LARGEST_BATCH = 256
OLDEST_TORCH = "2.12"
"""Older exporters compute sizes from weights and constants, so that nothing could be proven of them."""


class Deployed(nn.Module):
    """uint8 images [N, 3, H, W], RGB -> float32 logits [N, C, H, W], for every H and W.

    As `predict` does it: padded at the right and at the bottom to what the network takes.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        self.network = student.network

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        rows, columns = self._padded(height), self._padded(width)
        inputs = normalized(images, self.student.mean, self.student.std)
        logits = self.network(F.pad(inputs, (0, columns - width, 0, rows - height)))
        upsampled = F.interpolate(logits, (rows, columns), mode="bilinear", align_corners=self.student.align_corners)
        return upsampled[:, :, :height, :width]

    def _padded(self, side: int) -> int:
        """`Student.padded_size`, in the arithmetic of sizes that are symbols."""
        multiple = self.student.size_multiple
        cells: Any = (side + multiple - 1) // multiple
        least = self.student.min_size // multiple
        return multiple * (cells if least == 1 else torch.sym_max(cells, least))


def write(model: TrainedModel, kind: Format, path: Path) -> None:
    """Write the file; the model must be on the CPU.

    Whatever the exporters raise is passed on, for a network that cannot be exported for every size.

    Raises:
        UserError: torch is too old.
    """
    if torch.__version__ < OLDEST_TORCH:
        expected = f"expected torch {OLDEST_TORCH} or newer, for its exporter"
        raise UserError(f"format {kind}: {expected}, got {torch.__version__}")
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
    return {
        "class_names": list(model.class_names),
        "palette": format_palette(model.palette),
        "input": "images: uint8 [N, 3, H, W], RGB",
        "output": "logits: float32 [N, C, H, W]",
        "size_multiple": 1,
        "min_size": SHORTEST_SIDE,
        "weights": f"{model.weights} of {model.checkpoint.name}",
    }


def check(model: TrainedModel, kind: Format, path: Path) -> float:
    """Run the written file on random images of some sizes; returns the largest difference of a logit.

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
    """Sizes and batches: the smallest, a flat and a narrow one, the training crop, and one that is larger and odd."""
    step = _stride(model.student)
    height, width = model.crop_size
    least = _least_traced(model.student)
    return [
        (1, 3, SHORTEST_SIDE, SHORTEST_SIDE),
        (1, 3, SHORTEST_SIDE, width + step),
        (2, 3, height + step, step // 2 + 1),
        (1, 3, height, width),
        (3, 3, max(height, least) + step + 1, max(width, least) + 2 * step + 3),
    ]


def _stride(student: Student) -> int:
    """What one of the encoder's coarsest features stands for, in pixels."""
    encoder: Any = student.network.encoder
    return math.lcm(student.size_multiple, encoder.output_stride)


def _least_traced(student: Student) -> int:
    """The shortest side that is padded to twice the smallest that the network takes and its encoder halves evenly."""
    step = _stride(student)
    return 2 * math.ceil(student.min_size / step) * step - student.size_multiple + 1


def _program(model: TrainedModel) -> ExportedProgram:
    """The network for every size.

    Exporters take for granted that a size which is free is not 1: of the batch, nor of the coarsest features. So it is
    traced for sizes where that is so, which makes no other operations.
    """
    student = model.student
    shape = check_shapes(model)[-1]
    least = _least_traced(student)
    dims = [Dim("batch", min=2, max=LARGEST_BATCH), *(Dim(n, min=least, max=LONGEST_SIDE) for n in ("height", "width"))]
    multiples = student.size_multiple == _stride(student)
    with (
        _quiet(),
        _same_padding_of_multiples() if multiples else contextlib.nullcontext(),
        # It branches less on sizes that only a layout in memory depends on.
        symbolic_shapes_config.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
        torch.no_grad(),
    ):
        program = torch.export.export(
            _contiguous(Deployed(student).eval()),
            (torch.zeros(shape, dtype=torch.uint8),),
            dynamic_shapes={"images": dict(zip((0, 2, 3), dims, strict=True))},
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        _prove_assertions(program)
    _widen(program)
    return program


def _contiguous(module: nn.Module) -> nn.Module:
    """A copy with weights in plain order: in channels-last memory the layout of sizes of 1 is another."""
    return copy.deepcopy(module).to(memory_format=torch.contiguous_format)


def _prove_assertions(program: ExportedProgram) -> None:
    """Try at every size what the exporter took for granted without a proof, and take it out.

    It stands in the program as assertions. That a size is not 1 is no such thing: networks rely on it nowhere, and the
    smallest sizes are among those that `check` runs.

    Raises:
        RuntimeError: it is not so at some size.
    """
    assertions = program.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default)
    unproven = [node for node in assertions if not _says_not_one(node)]
    if unproven:
        holds = _with_all_they_need(unproven)
        for side in range(SHORTEST_SIDE, LONGEST_SIDE + 1):
            holds(torch.empty(1, 3, side, LONGEST_SIDE + SHORTEST_SIDE - side, dtype=torch.uint8, device="meta"))
    for node in assertions:
        program.graph.erase_node(node)
    program.graph.eliminate_dead_code()


def _says_not_one(assertion: fx.Node) -> bool:
    condition = assertion.args[0].meta["val"].node.expr  # type: ignore[union-attr]
    return isinstance(condition, sympy.Ne) and condition.rhs == 1


def _with_all_they_need(nodes: Sequence[fx.Node]) -> fx.GraphModule:
    """A function of the images that runs some nodes of a graph, and before them those that they are computed from."""
    needed, waiting = set(nodes), list(nodes)
    while waiting:
        new = set(waiting.pop().all_input_nodes) - needed
        needed |= new
        waiting += new
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in nodes[0].graph.nodes:
        if node in needed:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(())
    return fx.GraphModule({}, graph)


def _widen(program: ExportedProgram) -> None:
    """Let the program take every size, though it was traced for those whose coarsest features are not of size 1."""
    (images,) = (node for node in program.graph.nodes if node.name == "images")
    batch, _, *sides = images.meta["val"].shape
    program.range_constraints[batch.node.expr] = ValueRanges(1, LARGEST_BATCH)
    for side in sides:
        program.range_constraints[side.node.expr] = ValueRanges(SHORTEST_SIDE, LONGEST_SIDE)


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
