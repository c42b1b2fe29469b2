"""upsample_cross_entropy: cross-entropy at the target's resolution, without full-resolution logits or gradients.

The function, its checks, and the operator of torch, compiled or of Triton kernels, with its fakes and autograd. The
summed loss computes its gradient in the forward, where the powers are at hand; the backward only scales it. The
per-pixel loss saves log sum exp, [N, H, W], and has a backward of its own.

torch.library's autograd is what compilers see. Called eagerly, a torch.autograd.Function around the operator costs a
third of its host time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskmatch.ops import _backend, _library, reference
from maskmatch.ops._checks import (
    check_bool,
    check_integer,
    check_labels,
    check_logits,
    check_number,
    check_shape,
    check_sides,
    check_tensor,
)
from maskmatch.ops.reference import compute_dtype

NORMALIZATIONS = ("all", "confident", "none")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class LossInputs(NamedTuple):
    """What every form of the loss takes, checked and completed, in the order of the schema in csrc/library.cpp."""

    logits: Tensor
    target: Tensor
    confidence: Tensor | None
    threshold: float
    pixel_weight: Tensor | None
    class_weight: Tensor | None
    ignore_index: int
    label_smoothing: float
    align_corners: bool
    normalize: str
    divisor: Tensor | None


Form = Callable[..., Tensor]
"""What a backend offers: takes `LossInputs` one by one, gives the divided sum, or every pixel's loss."""


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    confidence: Tensor | None = None,
    threshold: float = 0.95,
    pixel_weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
    normalize: str | float | Tensor = "all",
    align_corners: bool = False,
) -> Tensor:
    """`cross_entropy(interpolate(logits, size of target), target)` over the confident pixels.

    Per pixel, with p = softmax(resize(logits)), target y, class weights v and smoothing e:
        l = w [confidence >= threshold] ((1 - e) v_y (-log p_y) + e / C sum_c v_c (-log p_c)),   0 where ignored,
    as torch's `cross_entropy` has it. The loss is the sum of l divided by what `normalize` says.

    Args:
        logits: fp16, bf16 or fp32 [N, C, h, w], C from 1 to 255, with any h x w; computed in fp32.
        target: uint8 or int64 [N, H, W], classes or ignore_index.
        confidence: float [N, H, W]; pixels below `threshold` (and NaN) have no loss.
        threshold: tau, a number; unused without confidence.
        pixel_weight: float [N, H, W], w; a constant, as is class_weight: no gradient flows to either.
        class_weight: float [C], v.
        ignore_index: target value of pixels that count in nothing.
        label_smoothing: e, in [0, 1].
        normalize: the divisor: `all` non-ignored pixels, the `confident` ones among them, or a number or 0-d
            tensor that the caller counted (such as the global batch's pixels); `none` returns every pixel's loss.
            A divisor of 0 gives a loss of 0.
        align_corners: as in `F.interpolate`, whose bilinear mode this resizes by.

    Returns:
        float32: a scalar, or [N, H, W] with normalize="none". Gradients come back in the logits' dtype.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value.
        RuntimeError: on the CPU, a target that is neither a class nor ignore_index (a device-side assert on CUDA).
    """
    _check_sizes(logits, target)
    return _backend.implementation("upsample_cross_entropy", logits)(
        logits,
        target,
        _check_map("confidence", confidence, target, torch.float32),
        check_number("threshold", threshold, float("-inf"), float("inf")),
        _check_constant("pixel_weight", _check_map("pixel_weight", pixel_weight, target, compute_dtype(logits))),
        _check_constant("class_weight", _check_class_weight(class_weight, logits)),
        check_integer("ignore_index", ignore_index, -(2**63), 2**63 - 1),
        check_number("label_smoothing", label_smoothing, 0, 1),
        check_bool("align_corners", align_corners),
        *_check_normalize(normalize, logits),
    )


def _check_sizes(logits: Tensor, target: Tensor) -> None:
    check_logits("logits", logits)
    check_tensor("target", target, "[N, H, W]", (torch.uint8, torch.int64), device=logits.device)
    check_shape("target", target, "[N, H, W]", (logits.shape[0], *target.shape[1:]))
    check_sides("target", target)


def _check_map(name: str, value: Tensor | None, target: Tensor, dtype: torch.dtype) -> Tensor | None:
    if value is None:
        return None
    check_tensor(name, value, "[N, H, W]", _FLOATS, device=target.device)
    check_shape(name, value, "[N, H, W]", target.shape)
    return value if value.dtype == dtype else value.to(dtype)


def _check_class_weight(value: Tensor | None, logits: Tensor) -> Tensor | None:
    if value is None:
        return None
    check_tensor("class_weight", value, "[C]", _FLOATS, device=logits.device)
    check_shape("class_weight", value, "[C]", (logits.shape[1],))
    return value.to(compute_dtype(logits))


def _check_constant(name: str, value: Tensor | None) -> Tensor | None:
    if value is not None and value.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} must not require grad: it is a constant here, detach it")
    return value


def _check_normalize(normalize: str | float | Tensor, logits: Tensor) -> tuple[str, Tensor | None]:
    """The schema's `normalize` and `divisor`."""
    if isinstance(normalize, str):
        if normalize not in NORMALIZATIONS:
            raise ValueError(f"normalize must be one of {', '.join(NORMALIZATIONS)}, or a count, got {normalize!r}")
        return normalize, None
    dtype = compute_dtype(logits)
    if not isinstance(normalize, Tensor):
        number = float(check_number("normalize", normalize, 0, float("inf")))
        return "given", torch.full((), number, dtype=dtype, device=logits.device)
    if normalize.dim() != 0 or normalize.dtype.is_complex or normalize.dtype == torch.bool:
        raise ValueError(f"normalize must be a 0-d count, got {normalize.dtype} {list(normalize.shape)}")
    if normalize.device != logits.device:
        raise ValueError(f"normalize must be on {logits.device} like the logits, got {normalize.device}")
    _check_constant("normalize", normalize)
    return "given", normalize.to(dtype)


def fake(logits: Tensor, target: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes and dtypes of the loss, its divisor and what the backward needs."""
    normalize, _, with_gradient = rest[-3:]
    per_pixel = normalize == "none"
    loss = logits.new_empty(target.shape if per_pixel else (), dtype=torch.float32)
    divisor = logits.new_empty((0,) if per_pixel else (), dtype=torch.float32)
    shape = (0,) if not with_gradient else target.shape if per_pixel else logits.shape
    return loss, divisor, logits.new_empty(shape, dtype=torch.float32)


def fake_backward(grad_output: Tensor, logits: Tensor, *_: Any) -> Tensor:
    """Shape and dtype of the gradient."""
    return logits.new_empty(logits.shape)


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *values, ctx.with_gradient = inputs
    given = LossInputs(*values)
    _, divisor, saved = output
    ctx.mark_non_differentiable(divisor, saved)
    ctx.set_materialize_grads(False)  # or the backward would be given zeros as large as `saved`
    ctx.dtype, ctx.per_pixel = given.logits.dtype, given.normalize == "none"
    if ctx.per_pixel:
        ctx.threshold = given.threshold
        ctx.options = given.ignore_index, given.label_smoothing, given.align_corners
        tensors = given.logits, given.target, given.confidence, given.pixel_weight, given.class_weight
        ctx.save_for_backward(saved, *tensors)
    else:
        ctx.save_for_backward(saved, divisor)


def backward(ctx: Any, backward_operator: Callable[..., Tensor], grad_loss: Tensor | None) -> Tensor | None:
    """The gradient of the logits, in their dtype; all else is a constant."""
    if grad_loss is None:
        return None
    if torch.is_grad_enabled():  # create_graph=True: the second derivative would silently be zero
        raise RuntimeError("upsample_cross_entropy has no second derivative: use the reference backend, or detach")
    if not ctx.with_gradient:
        raise RuntimeError("upsample_cross_entropy was called with with_gradient=False, so it has no gradient")
    saved, *tensors = ctx.saved_tensors
    if not ctx.per_pixel:
        (divisor,) = tensors
        gradient = saved * (grad_loss / divisor)
        return gradient if ctx.dtype == torch.float32 else gradient.to(ctx.dtype)
    logits, target, confidence, pixel_weight, class_weight = tensors
    return backward_operator(
        grad_loss.to(torch.float32), logits, target, saved, confidence, ctx.threshold, pixel_weight, class_weight,
        *ctx.options,
    )  # fmt: skip


class _Eager(torch.autograd.Function):
    """The operator with its autograd, where nothing is compiled or transformed."""

    @staticmethod
    def forward(ctx: Any, operators: Any, logits: Tensor, *rest: Any) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            output = operators.upsample_cross_entropy.default(logits, *rest)
        ctx.operators = operators
        setup_context(ctx, (logits, *rest), output)
        return output[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        operator = ctx.operators.upsample_cross_entropy_backward.default
        return None, backward(ctx, operator, grads[0]), *[None] * 11


def _is_eager() -> bool:
    return not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def attach(namespace: str) -> Form:
    """Give torch.ops.NAMESPACE's operators their fakes and autograd; returns the function that a backend offers."""
    operators = getattr(torch.ops, namespace)

    def gradients(ctx: Any, grad_loss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        return backward(ctx, operators.upsample_cross_entropy_backward.default, grad_loss), *[None] * 11

    torch.library.register_fake(f"{namespace}::upsample_cross_entropy", fake)
    torch.library.register_fake(f"{namespace}::upsample_cross_entropy_backward", fake_backward)
    torch.library.register_autograd(f"{namespace}::upsample_cross_entropy", gradients, setup_context=setup_context)

    def run(logits: Tensor, *rest: Any) -> Tensor:
        with_gradient = torch.is_grad_enabled() and logits.requires_grad
        if with_gradient and _is_eager():
            loss: Tensor = _Eager.apply(operators, logits, *rest, True)
        else:
            loss, _, _ = operators.upsample_cross_entropy.default(logits, *rest, with_gradient)
        return loss

    return run


def _reference(logits: Tensor, target: Tensor, *rest: Any) -> Tensor:
    check_labels(target, logits.shape[1], LossInputs(logits, target, *rest).ignore_index)
    return reference.upsample_cross_entropy(logits, target, *rest)


_backend.register("reference", "upsample_cross_entropy", _reference)
if _library.problems["cpp"] is None:
    _backend.register_compiled("upsample_cross_entropy", attach("maskmatch"))
