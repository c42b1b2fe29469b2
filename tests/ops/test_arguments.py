"""Wrong arguments end in a clear ValueError, TypeError or RuntimeError, before any work."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmatch.ops import info, multiscale_pseudo_label, patch_mask, upsample_cross_entropy, use_backend


def loss(**changes: Any) -> object:
    arguments: dict[str, Any] = {
        "logits": torch.randn(4, 3, 5, 5),
        "target": torch.zeros(4, 21, 22, dtype=torch.uint8),
        "confidence": torch.rand(4, 21, 22),
        "pixel_weight": torch.rand(4, 21, 22),
        "class_weight": torch.rand(3),
        "threshold": 0.5,
        "ignore_index": 255,
        "label_smoothing": 0.1,
        "normalize": "all",
        "align_corners": False,
    } | changes
    return upsample_cross_entropy(arguments.pop("logits"), arguments.pop("target"), **arguments)


def label(**changes: Any) -> object:
    arguments: dict[str, Any] = {
        "logits": [torch.randn(2, 3, 5, 5), torch.randn(2, 3, 7, 6)],
        "size": (20, 21),
        "flipped": [False, True],
        "weights": [1.0, 2.0],
        "average": "probability",
        "align_corners": False,
    } | changes
    return multiscale_pseudo_label(arguments.pop("logits"), arguments.pop("size"), **arguments)


def mask(**changes: Any) -> object:
    arguments: dict[str, Any] = {
        "images": torch.zeros(2, 3, 20, 21, dtype=torch.uint8),
        "patch_size": 4,
        "mask_ratio": 0.5,
        "seeds": torch.tensor([1, 2]),
        "strategy": "random",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "fill": None,
    } | changes
    return patch_mask(arguments.pop("images"), arguments.pop("patch_size"), **arguments)


WRONG = [
    (loss, {"logits": torch.randn(3, 5, 5)}, ValueError, r"logits must be \[N, C, h, w\], got \[3, 5, 5\]"),
    (loss, {"logits": torch.randn(4, 3, 5, 5, dtype=torch.complex64)}, TypeError, "logits must be float16"),
    (loss, {"logits": torch.randn(4, 256, 5, 5)}, ValueError, "1 to 255 classes, got 256"),
    (loss, {"logits": torch.randn(4, 3, 0, 5)}, ValueError, "at least 1 x 1"),
    (loss, {"logits": torch.randn(4, 3, 5, 5).to_sparse()}, TypeError, "must be a dense tensor"),
    (loss, {"logits": [1.0]}, TypeError, "logits must be a tensor .*, got list"),
    (
        loss,
        {"target": torch.zeros(3, 21, 22, dtype=torch.uint8)},
        ValueError,
        r"target must be \[N, H, W\] = \[4, 21, 22\], got \[3, 21, 22\]",
    ),
    (loss, {"target": torch.zeros(4, 21, 22)}, TypeError, "target must be uint8 or int64, got torch.float32"),
    (loss, {"target": torch.zeros(4, 1, 21, 22, dtype=torch.uint8)}, ValueError, "target must be"),
    (loss, {"target": torch.zeros(4, 0, 22, dtype=torch.uint8)}, ValueError, "at least 1 x 1"),
    (
        loss,
        {"confidence": torch.rand(4, 20, 22)},
        ValueError,
        r"confidence must be \[N, H, W\] = \[4, 21, 22\], got \[4, 20, 22\]",
    ),
    (loss, {"confidence": torch.zeros(4, 21, 22, dtype=torch.int64)}, TypeError, "confidence must be"),
    (loss, {"confidence": torch.rand(4, 21, 22, device="meta")}, ValueError, "must be on cpu"),
    (loss, {"pixel_weight": torch.rand(4, 21)}, ValueError, "pixel_weight must be"),
    (loss, {"pixel_weight": torch.rand(4, 21, 22, requires_grad=True)}, ValueError, "must not require grad"),
    (loss, {"class_weight": torch.rand(4)}, ValueError, r"class_weight must be \[C\] = \[3\], got \[4\]"),
    (loss, {"class_weight": [1.0, 1.0, 1.0]}, TypeError, "class_weight must be a tensor"),
    (loss, {"threshold": "0.5"}, TypeError, "threshold must be a number"),
    (loss, {"threshold": float("nan")}, ValueError, "threshold must be in"),
    (loss, {"ignore_index": 1.5}, TypeError, "ignore_index must be an integer"),
    (loss, {"ignore_index": 2**80}, ValueError, "ignore_index must be in"),
    (loss, {"label_smoothing": 1.5}, ValueError, r"label_smoothing must be in \[0, 1\], got 1.5"),
    (loss, {"normalize": "mean"}, ValueError, "normalize must be one of all, confident, none"),
    (loss, {"normalize": -1}, ValueError, "normalize must be in"),
    (loss, {"normalize": torch.ones(2)}, ValueError, "0-d count"),
    (loss, {"normalize": None}, TypeError, "normalize must be a number"),
    (loss, {"align_corners": None}, TypeError, "align_corners must be True or False"),
    (label, {"logits": torch.randn(2, 3, 5, 5)}, TypeError, "logits must be a list of tensors"),
    (label, {"logits": []}, ValueError, "at least one scale"),
    (
        label,
        {"logits": [torch.randn(2, 3, 5, 5), torch.randn(2, 4, 5, 5)]},
        ValueError,
        r"logits\[1\] must have",
    ),
    (label, {"logits": [torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5).half()]}, ValueError, "float16"),
    (label, {"size": (20,)}, ValueError, r"size must be \(height, width\)"),
    (label, {"size": (20, 0)}, ValueError, "size must be in"),
    (label, {"size": (20, 1.5)}, TypeError, "size must be an integer"),
    (label, {"size": (20, 2**31)}, ValueError, "size"),
    (label, {"flipped": [True]}, ValueError, "one entry for each of 2 scales"),
    (label, {"flipped": [True, 2]}, TypeError, r"flipped\[1\] must be True or False"),
    (label, {"weights": [1.0, -1.0]}, ValueError, r"weights\[1\] must be finite and not negative"),
    (label, {"weights": [0.0, 0.0]}, ValueError, "must not all be zero"),
    (label, {"average": numpy.zeros(2)}, ValueError, "average must be one of probability, logit, got array"),
    (label, {"average": "mean"}, ValueError, "average must be one of probability, logit"),
    (mask, {"images": torch.zeros(3, 20, 21)}, ValueError, "images must be"),
    (mask, {"images": torch.zeros(2, 3, 20, 21, dtype=torch.int32)}, TypeError, "images must be uint8"),
    (mask, {"patch_size": 0}, ValueError, "patch_size must be"),
    (mask, {"patch_size": 2**40}, ValueError, "patch_size must be"),
    (mask, {"patch_size": 4.0}, TypeError, "patch_size must be an integer"),
    (mask, {"mask_ratio": 1.1}, ValueError, r"mask_ratio must be in \[0, 1\], got 1.1"),
    (mask, {"seeds": None}, ValueError, "seeds must be int64"),
    (mask, {"seeds": torch.tensor([1])}, ValueError, r"seeds must be \[N\] = \[2\], got \[1\]"),
    (mask, {"seeds": torch.tensor([1.0, 2.0])}, TypeError, "seeds must be int64"),
    (mask, {"strategy": "blocks"}, ValueError, "strategy must be one of random, block, grid"),
    (mask, {"mean": (0.5,)}, ValueError, "mean must have one number for each of 3 channels"),
    (mask, {"std": (0.5, 0.0, 0.5)}, ValueError, "std must be positive"),
    (mask, {"fill": "black"}, TypeError, "fill must be"),
    (mask, {"fill": float("nan")}, ValueError, "fill"),
]


@pytest.mark.parametrize(
    ("operator", "changes", "error", "message"),
    WRONG,
    ids=[f"{w[0].__name__}-{'-'.join(w[1])}-{i}" for i, w in enumerate(WRONG)],
)
def test_wrong_argument(operator: Any, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        operator(**changes)


# Small or beyond every limit: a size in between is right, and only slow.
INTEGERS = st.one_of(st.integers(-3, 60), st.sampled_from([-(2**70), -(2**31), 2**31, 2**40, 2**63 - 1, 2**70]))
SCALARS = st.one_of(
    st.none(), st.booleans(), INTEGERS, st.floats(), st.text(max_size=3), st.just([]), st.just({})
)  # fmt: skip
DTYPES = st.sampled_from(
    [torch.uint8, torch.int64, torch.int32, torch.bool, torch.float16, torch.float32, torch.complex64]
)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 5), max_size=5))
    value = torch.zeros(shape, dtype=draw(DTYPES), device=draw(st.sampled_from(["cpu", "cpu", "meta"])))
    return value.to_sparse() if draw(st.booleans()) and value.device.type == "cpu" else value


ANYTHING = st.one_of(SCALARS, tensors(), st.lists(st.one_of(SCALARS, tensors()), max_size=3))
NAMES = {
    loss: ["logits", "target", "confidence", "pixel_weight", "class_weight", "threshold", "ignore_index",
           "label_smoothing", "normalize", "align_corners"],
    label: ["logits", "size", "flipped", "weights", "average", "align_corners"],
    mask: ["images", "patch_size", "mask_ratio", "seeds", "strategy", "mean", "std", "fill"],
}  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_anything_anywhere(data: st.DataObject) -> None:
    """Whatever stands in for one or two arguments: a result or one of the three errors, never another or a crash."""
    operator = data.draw(st.sampled_from(list(NAMES)))
    names = data.draw(st.lists(st.sampled_from(NAMES[operator]), min_size=1, max_size=2, unique=True))
    changes = {name: data.draw(ANYTHING) for name in names}
    with contextlib.suppress(ValueError, TypeError, RuntimeError):
        operator(**changes)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_anything_past_the_python_checks(data: st.DataObject) -> None:
    """A direct call of the compiled operator does not crash either."""
    if "cpp" not in info()["available"]:
        pytest.skip("no compiled operators")
    tensor = st.one_of(tensors(), st.just(torch.zeros(2, 3, 4, 4)), st.just(torch.zeros(2, 9, 9, dtype=torch.uint8)))
    optional = st.one_of(st.none(), tensor)
    number, whole = st.floats(), st.integers(-(2**62), 2**62)
    namespace = torch.ops.maskmatch
    numbers = st.lists(number, max_size=4)
    with_arguments = [
        (namespace.patch_mask, [tensor, whole, number, tensor, st.sampled_from(["random", "grid", "x"]),
                                numbers, numbers, numbers]),
        (namespace.multiscale_pseudo_label, [st.lists(tensor, max_size=2), st.integers(-5, 70), st.integers(-5, 70),
                                             st.lists(whole, max_size=2), st.lists(number, max_size=2),
                                             st.sampled_from(["probability", "logit", "x"]), st.booleans()]),
        (namespace.upsample_cross_entropy, [tensor, tensor, optional, number, optional, optional, whole, number,
                                            st.booleans(), st.booleans(), st.booleans()]),
        (namespace.upsample_cross_entropy_backward, [tensor, tensor, tensor, tensor, optional, number, optional,
                                                     optional, whole, number, st.booleans()]),
    ]  # fmt: skip
    operator, arguments = data.draw(st.sampled_from(with_arguments))
    values = [data.draw(argument) for argument in arguments]
    with contextlib.suppress(ValueError, TypeError, RuntimeError):
        operator(*values)


def test_fp64_is_the_reference_s_alone() -> None:
    if "cpp" not in info()["available"]:
        pytest.skip("no compiled operators")
    with use_backend("cpp"), pytest.raises(TypeError, match=r"got torch\.float64"):
        loss(logits=torch.randn(4, 3, 5, 5, dtype=torch.float64))
    with use_backend("auto"):
        loss(logits=torch.randn(4, 3, 5, 5, dtype=torch.float64))


def test_a_divisor_of_more_than_64_bits() -> None:
    torch.manual_seed(0)
    huge = loss(normalize=2**70)
    torch.manual_seed(0)
    assert huge == loss(normalize=2.0**70)
