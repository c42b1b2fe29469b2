"""Every operator, backend, dtype, shape, layout and option against the fp64 reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from maskmatch.ops import info, multiscale_pseudo_label, patch_mask, upsample_cross_entropy, use_backend
from maskmatch.ops.triton import INTERPRETED

# (N, C, h, w, H, W): one logit, one row, one column, ratios from 1 to 16, enlarging and shrinking, odd sizes, few and
# many classes. The widths cross the 4, 8 and 16 lanes of the vector code and its one- and two-vector windows.
SHAPES = [
    (2, 5, 1, 1, 5, 7),
    (1, 3, 1, 50, 1, 100),
    (1, 2, 9, 1, 30, 1),
    (2, 21, 6, 6, 41, 41),
    (1, 19, 16, 17, 16, 17),
    (1, 4, 33, 35, 47, 51),
    (1, 3, 20, 30, 7, 11),
    (1, 2, 5, 7, 37, 51),
    (1, 4, 4, 5, 56, 70),
    (2, 3, 3, 5, 48, 80),
    (1, 150, 3, 9, 21, 36),
    (1, 255, 3, 3, 17, 19),
    (2, 1, 4, 4, 9, 9),
    (1, 7, 40, 200, 3, 40),
    (1, 2, 3, 400, 2, 2),
    (1, 3, 2, 3, 40, 120),
    (0, 3, 4, 4, 9, 9),
]
if INTERPRETED:  # which is slow for each row of pixels: the same kinds of shapes, with fewer rows
    SHAPES = [
        (2, 5, 1, 1, 5, 7),
        (1, 3, 1, 50, 1, 100),
        (1, 2, 9, 1, 17, 1),
        (2, 21, 3, 3, 11, 13),
        (1, 19, 5, 6, 5, 6),
        (1, 4, 8, 9, 11, 13),
        (1, 3, 20, 30, 7, 11),
        (1, 2, 3, 4, 19, 27),
        (1, 4, 1, 5, 14, 70),
        (2, 3, 1, 5, 8, 80),
        (1, 150, 2, 3, 4, 9),
        (1, 255, 2, 2, 3, 4),
        (2, 1, 4, 4, 5, 9),
        (1, 7, 40, 200, 3, 40),
        (1, 2, 3, 400, 2, 2),
        (1, 3, 1, 3, 10, 120),
        (0, 3, 4, 4, 9, 9),
    ]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# Relative to |value| + 1 and to the largest |logit|; gradients in norm, fp16 and bf16 ones being rounded once.
# The worst seen with the C++ code on AVX-512, AVX2 and baseline: values 7e-8, labels that differ 2e-12 apart, mean
# losses 2e-7; gradients 8e-5 at logits of 1e4 and 4e-7 else, in fp16 2.4e-4, in bf16 2.4e-3.
VALUE_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 4e-3, torch.float64: 1e-12}


def draw_logits(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * spread).to(dtype)


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another layout of memory."""
    if layout == "channels_last" and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        wide = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] * 2 + 1, dtype=tensor.dtype)
        view = wide[..., 1::2]
        view.copy_(tensor)
        return view
    return tensor


def assert_close(got: Tensor, expected: Tensor, largest: float) -> None:
    got, expected = got.double().cpu(), expected.double()
    error = (got - expected).abs() / (expected.abs() + 1)
    limit = VALUE_TOLERANCE * max(1.0, largest)
    assert not error.isnan().any()
    assert error.numel() == 0 or error.max() <= limit


# ---- multiscale_pseudo_label ----


def check_pseudo_label(scales: list[Tensor], size: tuple[int, int], device: torch.device, **options: Any) -> None:
    label, confidence = multiscale_pseudo_label([scale.to(device) for scale in scales], size, **options)
    with use_backend("reference"):
        expected_label, expected = multiscale_pseudo_label([s.double() for s in scales], size, **options)
        probability = mean_probability([s.double() for s in scales], size, **options)
    assert label.dtype == torch.uint8 and confidence.dtype == torch.float32
    assert label.shape == confidence.shape == (scales[0].shape[0], *size)
    largest = max((float(s.double().abs().max()) for s in scales if s.numel()), default=0.0)
    assert_close(confidence, expected, largest)
    differs = label.cpu() != expected_label
    chosen = probability.gather(1, label.cpu().long()[:, None])[:, 0]
    assert not (differs & (expected.double() - chosen > VALUE_TOLERANCE * max(1.0, largest))).any()


def mean_probability(
    scales: list[Tensor],
    size: tuple[int, int],
    flipped: list[bool] | None = None,
    weights: list[float] | None = None,
    average: str = "probability",
    align_corners: bool = False,
) -> Tensor:
    """An independent definition: the resize as a matrix product with explicit weights."""
    flips = flipped or [False] * len(scales)
    shares = torch.tensor(weights or [1.0] * len(scales), dtype=torch.float64)
    total = torch.zeros(())
    for scale, flip, share in zip(scales, flips, shares / shares.sum(), strict=True):
        rows = bilinear_matrix(scale.shape[2], size[0], align_corners)
        columns = bilinear_matrix(scale.shape[3], size[1], align_corners)
        resized = rows @ scale @ columns.T
        resized = resized.flip(3) if flip else resized
        total = total + share * (resized.softmax(1) if average == "probability" else resized)
    return total if average == "probability" else total.softmax(1)


def bilinear_matrix(source: int, target: int, align_corners: bool) -> Tensor:
    matrix = torch.zeros(target, source, dtype=torch.float64)
    for i in range(target):
        if align_corners:
            position = i * (source - 1) / (target - 1) if target > 1 else 0.0
        else:
            position = max((i + 0.5) * source / target - 0.5, 0.0)
        low = min(int(position), source - 1)
        matrix[i, low] += 1 - (position - low)
        matrix[i, min(low + 1, source - 1)] += position - low
    return matrix


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pseudo_label_of_one_scale(backend: torch.device, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check_pseudo_label([draw_logits(shape[:4], dtype)], shape[4:], backend)


@pytest.mark.parametrize("align_corners", [False, True], ids=["half-pixel", "aligned"])
@pytest.mark.parametrize("average", ["probability", "logit"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pseudo_label_of_three_scales(
    backend: torch.device, shape: tuple[int, ...], average: str, align_corners: bool
) -> None:
    count, classes, height, width = shape[:4]
    sizes = [(height, width), (height + 1, max(1, width // 2)), (2 * height, width + 3)]
    scales = [draw_logits((count, classes, *size), torch.float32, seed) for seed, size in enumerate(sizes)]
    options = {"flipped": [False, True, True], "weights": [1.0, 0.5, 2.0], "average": average}
    check_pseudo_label(scales, shape[4:], backend, align_corners=align_corners, **options)


@pytest.mark.parametrize("layout", ["channels_last", "strided"])
def test_pseudo_label_layouts(backend: torch.device, layout: str) -> None:
    scales = [laid_out(draw_logits((2, 5, 6, 7), torch.float32, seed), layout) for seed in (0, 1)]
    check_pseudo_label(scales, (31, 33), backend)


# Where some classes are too unlikely to matter, where nearly all are, and where powers would not fit a float.
SPREADS = [12.0, 50.0, 4e3]


@pytest.mark.parametrize("average", ["probability", "logit"])
@pytest.mark.parametrize("spread", SPREADS)
def test_pseudo_label_of_large_logits(backend: torch.device, spread: float, average: str) -> None:
    scales = [draw_logits((1, 6, 5, 5), torch.float32, seed, spread) for seed in (0, 1)]
    check_pseudo_label(scales, (35, 35), backend, average=average)
    check_pseudo_label(scales[:1], (35, 35), backend)


# ---- upsample_cross_entropy ----


def draw_pixels(shape: tuple[int, ...], classes: int, ignore_index: int, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.1] = ignore_index
    return {
        "target": target,
        "confidence": torch.rand(shape, generator=generator),
        "pixel_weight": torch.rand(shape, generator=generator),
        "upstream": torch.randn(shape, generator=generator),
    }


def loss_and_gradient(
    logits: Tensor, target: Tensor, upstream: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    loss = upsample_cross_entropy(logits, target, **options)
    # Scaled up, as a loss scaler does, so that fp16 gradients are not lost to its smallest number.
    weight = upstream if loss.dim() else torch.full_like(loss, float(target.numel() or 1))
    (loss * weight.to(loss.dtype)).sum().backward()
    assert logits.grad is not None and logits.grad.dtype == logits.dtype
    return loss.detach(), logits.grad


def check_cross_entropy(logits: Tensor, target: Tensor, upstream: Tensor, device: torch.device, **options: Any) -> None:
    def moved(dtype: torch.dtype | None, where: torch.device) -> dict[str, Any]:
        return {k: v.to(where, dtype) if isinstance(v, Tensor) else v for k, v in options.items()}

    got, gradient = loss_and_gradient(logits.to(device), target.to(device), upstream.to(device), moved(None, device))
    cpu = torch.device("cpu")
    exact = moved(None, cpu)
    for name in ("pixel_weight", "class_weight"):
        if name in exact:
            exact[name] = exact[name].double()
    with use_backend("reference"):
        expected, expected_gradient = loss_and_gradient(logits.double(), target, upstream, exact)
    assert got.dtype == torch.float32
    largest = float(logits.double().abs().max()) if logits.numel() else 0.0
    if got.dim():
        assert_close(got, expected, largest)
    else:
        # 1e-5 relative; below 0.1 the rounding of a sum 1 + x of powers shows, as it does in torch's own fp32 loss.
        assert abs(got.item() - expected.item()) <= VALUE_TOLERANCE * max(abs(expected.item()), 0.1)
    error = (gradient.double().cpu() - expected_gradient).norm()
    # Where the exact gradient vanishes, as with one class, rounding of its summands remains.
    floor = 1e-7 * (1 + target.numel()) if logits.shape[1] == 1 else 1e-7
    assert error <= GRADIENT_TOLERANCE[logits.dtype] * expected_gradient.norm() + floor


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy(backend: torch.device, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    ignore_index = 255 if shape[1] < 255 else -1
    pixels = draw_pixels((shape[0], *shape[4:]), shape[1], ignore_index)
    check_cross_entropy(
        draw_logits(shape[:4], dtype),
        pixels["target"],
        pixels["upstream"],
        backend,
        ignore_index=ignore_index,
    )


OPTIONS: list[dict[str, Any]] = [
    {"confidence": True, "threshold": 0.5},
    {"confidence": True, "threshold": 0.5, "normalize": "confident"},
    {"confidence": True, "threshold": 0.99, "normalize": "none"},
    {"confidence": True, "threshold": 2.0},
    {"normalize": "none"},
    {"normalize": 37.5, "pixel_weight": True},
    {"normalize": "tensor", "class_weight": True},
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0, "class_weight": True, "normalize": "none"},
    {
        "label_smoothing": 0.3,
        "class_weight": True,
        "pixel_weight": True,
        "confidence": True,
        "threshold": 0.3,
    },
    {"class_weight": True, "pixel_weight": True, "normalize": "none", "confidence": True, "threshold": 0.5},
    {"align_corners": True, "normalize": "none", "label_smoothing": 0.1},
    {"align_corners": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(map(str, options.items())))
@pytest.mark.parametrize("shape", [SHAPES[3], SHAPES[4], SHAPES[6], SHAPES[8]], ids=str)
def test_cross_entropy_options(backend: torch.device, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    pixels = draw_pixels((shape[0], *shape[4:]), shape[1], 255)
    options = dict(options)
    for name in ("confidence", "pixel_weight"):
        if options.get(name):
            options[name] = pixels[name]
    if options.get("class_weight"):
        options["class_weight"] = torch.linspace(0.0, 2.0, shape[1])  # a class of weight 0 among them
    if options.get("normalize") == "tensor":
        options["normalize"] = torch.tensor(12345)
    for target in (pixels["target"], pixels["target"].to(torch.uint8)):
        check_cross_entropy(draw_logits(shape[:4], torch.float32), target, pixels["upstream"], backend, **options)


@pytest.mark.parametrize("layout", ["channels_last", "strided"])
@pytest.mark.parametrize("normalize", ["all", "none"])
def test_cross_entropy_layouts(backend: torch.device, layout: str, normalize: str) -> None:
    pixels = {name: laid_out(map_, layout) for name, map_ in draw_pixels((2, 31, 33), 5, 255).items()}
    target, upstream = pixels.pop("target"), pixels.pop("upstream")
    logits = laid_out(draw_logits((2, 5, 6, 7), torch.float32), layout)
    check_cross_entropy(logits, target, upstream, backend, threshold=0.5, normalize=normalize, **pixels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("normalize", ["all", "none"])
@pytest.mark.parametrize("spread", SPREADS)
def test_cross_entropy_of_large_logits(backend: torch.device, spread: float, normalize: str, smoothing: float) -> None:
    pixels = draw_pixels((1, 35, 35), 6, 255)
    logits = draw_logits((1, 6, 5, 5), torch.float32, spread=spread)
    options = {"normalize": normalize, "label_smoothing": smoothing}
    check_cross_entropy(logits, pixels["target"], pixels["upstream"], backend, **options)


@pytest.mark.parametrize("part", range(4))
def test_drawn_cases(backend: torch.device, part: int) -> None:
    """Shapes and options that nobody thought of; a few at a time, as on a device Triton compiles kernels for each."""
    examples = 2 if info()["backend"] == "triton" else 10

    @settings(max_examples=examples, deadline=None, database=None)
    @seed(part)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        check_drawn_case(backend, data)

    check()


def check_drawn_case(backend: torch.device, data: st.DataObject) -> None:
    integer, boolean = (
        (lambda low, high: data.draw(st.integers(low, high))),
        (lambda: data.draw(st.booleans())),
    )
    side = 12 if INTERPRETED else 60
    shape = (integer(1, 2), integer(1, 9), integer(1, 40), integer(1, 40))
    size = (integer(1, side), integer(1, side))
    options: dict[str, Any] = {"align_corners": boolean()}
    logits = draw_logits(shape, data.draw(st.sampled_from([torch.float32, torch.float16])), integer(0, 9))
    check_pseudo_label([logits, logits.flip(0)], size, backend, flipped=[boolean(), boolean()], **options)
    pixels = draw_pixels((shape[0], *size), shape[1], 255, integer(0, 9))
    for name in ("confidence", "pixel_weight"):
        if boolean():
            options[name] = pixels[name]
    if boolean():
        options["class_weight"] = torch.linspace(0.5, 2.0, shape[1])
    options["threshold"] = data.draw(st.floats(0, 1))
    options["label_smoothing"] = data.draw(st.sampled_from([0.0, 0.2]))
    options["normalize"] = data.draw(st.sampled_from(["all", "confident", "none"]))
    check_cross_entropy(logits, pixels["target"], pixels["upstream"], backend, **options)


# ---- patch_mask ----

IMAGE_DTYPES = [torch.uint8, *DTYPES]
IMAGE_SHAPES = [(3, 3, 40, 50), (2, 1, 7, 9), (1, 5, 1, 1), (2, 3, 33, 16), (0, 3, 8, 8)]
if INTERPRETED:
    IMAGE_SHAPES = [(2, 3, 5, 18), (1, 5, 1, 1), (3, 1, 2, 9), (0, 3, 8, 8)]
# fp32 images: 3e-7 seen at values up to 5; half-precision ones are rounded once.
IMAGE_TOLERANCE = {torch.uint8: 2e-6, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
if INTERPRETED:  # Triton's interpreter cuts fp32 off to bf16 where a device rounds
    IMAGE_TOLERANCE[torch.bfloat16] *= 2


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", IMAGE_DTYPES, ids=str)
@pytest.mark.parametrize("strategy", ["random", "block", "grid"])
@pytest.mark.parametrize("shape", IMAGE_SHAPES, ids=str)
def test_patch_mask(
    backend: torch.device, shape: tuple[int, ...], strategy: str, dtype: torch.dtype, layout: str
) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if dtype != torch.uint8:
        images = (images / 255).to(dtype)
    images = laid_out(images, layout)
    channels = shape[1]
    options: dict[str, Any] = {
        "strategy": strategy,
        "mean": torch.linspace(0.1, 0.6, channels).tolist(),
        "std": torch.linspace(0.2, 0.4, channels).tolist(),
        "fill": torch.linspace(0.0, 1.0, channels).tolist(),
    }
    seeds = torch.tensor([0, -1, 2**62])[: shape[0]]
    for patch_size, ratio in ((8, 0.7), (5, 0.0), (1, 0.5), (100, 1.0)):
        output, grid = patch_mask(images.to(backend), patch_size, mask_ratio=ratio, seeds=seeds.to(backend), **options)
        with use_backend("reference"):
            expected, expected_grid = patch_mask(
                images.double() / (255 if dtype == torch.uint8 else 1),
                patch_size, mask_ratio=ratio, seeds=seeds, **options,
            )  # fmt: skip
            same_layout, _ = patch_mask(images, patch_size, mask_ratio=ratio, seeds=seeds, **options)
        assert torch.equal(grid.cpu(), expected_grid)
        assert output.dtype == (torch.float32 if dtype == torch.uint8 else dtype)
        assert output.numel() == 0 or output.stride() == same_layout.stride()
        error = (output.cpu().double() - expected).abs()
        assert not error.numel() or error.max() <= IMAGE_TOLERANCE[dtype]
