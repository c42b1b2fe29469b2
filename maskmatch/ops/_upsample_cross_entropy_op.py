"""upsample_cross_entropy as an operator of torch, compiled or of Triton kernels: fakes and autograd.

The summed loss computes its gradient in the forward, where the powers are at hand; the backward only scales it. The
per-pixel loss saves log sum exp, [N, H, W], and has a backward of its own.

torch.library's autograd is what compilers see. Called eagerly, a torch.autograd.Function around the operator costs a
third of its host time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from maskmatch.ops import _backend, _library

Divisor = Callable[[Tensor], Tensor | float]
"""What the sum is divided by, from the counts."""


def fake(logits: Tensor, target: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes and dtypes of loss, counts and what the backward needs."""
    per_pixel, with_gradient = rest[-2:]
    loss = logits.new_empty(target.shape if per_pixel else (), dtype=torch.float32)
    counts = logits.new_empty((2,), dtype=torch.int64)
    shape = (0,) if not with_gradient else target.shape if per_pixel else logits.shape
    return loss, counts, logits.new_empty(shape, dtype=torch.float32)


def fake_backward(grad_output: Tensor, logits: Tensor, *_: Any) -> Tensor:
    """Shape and dtype of the gradient."""
    return logits.new_empty(logits.shape)


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, confidence, threshold, pixel_weight, class_weight, *options = inputs
    ctx.ignore_index, ctx.label_smoothing, ctx.align_corners, ctx.per_pixel, ctx.with_gradient = options
    ctx.threshold, ctx.dtype = threshold, logits.dtype
    _, counts, saved = output
    ctx.mark_non_differentiable(counts, saved)
    ctx.set_materialize_grads(False)  # or the backward would be given zeros as large as `saved`
    if ctx.per_pixel:
        ctx.save_for_backward(logits, target, saved, confidence, pixel_weight, class_weight)
    else:
        ctx.save_for_backward(saved)


def backward(ctx: Any, backward_operator: Callable[..., Tensor], grad_loss: Tensor | None) -> Tensor | None:
    """The gradient of the logits, in their dtype; all else is a constant."""
    if grad_loss is None:
        return None
    if torch.is_grad_enabled():  # create_graph=True: the second derivative would silently be zero
        raise RuntimeError("upsample_cross_entropy has no second derivative: use the reference backend, or detach")
    if not ctx.with_gradient:
        raise RuntimeError("upsample_cross_entropy was called with with_gradient=False, so it has no gradient")
    if not ctx.per_pixel:
        (saved,) = ctx.saved_tensors
        return (saved * grad_loss).to(ctx.dtype)
    logits, target, log_sum, confidence, pixel_weight, class_weight = ctx.saved_tensors
    return backward_operator(
        grad_loss.to(torch.float32), logits, target, log_sum, confidence, ctx.threshold, pixel_weight,
        class_weight, ctx.ignore_index, ctx.label_smoothing, ctx.align_corners,
    )  # fmt: skip


class _Eager(torch.autograd.Function):
    """The operator with its autograd and the division of its sum, where nothing is compiled or transformed."""

    @staticmethod
    def forward(ctx: Any, operators: Any, divisor_of: Divisor | None, *inputs: Any) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            output = operators.upsample_cross_entropy.default(*inputs)
            setup_context(ctx, inputs, output)
            loss, counts, _ = output
            ctx.operators, ctx.divisor = operators, None if divisor_of is None else divisor_of(counts)
            return loss if ctx.divisor is None else loss / ctx.divisor, counts

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_loss = grads[0]
        if grad_loss is not None and ctx.divisor is not None:
            grad_loss = grad_loss / ctx.divisor
        operator = ctx.operators.upsample_cross_entropy_backward.default
        return None, None, backward(ctx, operator, grad_loss), *[None] * 10


def _is_eager() -> bool:
    return not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def attach(namespace: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Give torch.ops.NAMESPACE's operators their fakes and autograd; returns the function that a backend offers.

    Unlike the reference's it divides: what it takes last is the divisor, from the counts, or None.
    """
    operators = getattr(torch.ops, namespace)

    def gradients(ctx: Any, grad_loss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        return backward(ctx, operators.upsample_cross_entropy_backward.default, grad_loss), *[None] * 10

    torch.library.register_fake(f"{namespace}::upsample_cross_entropy", fake)
    torch.library.register_fake(f"{namespace}::upsample_cross_entropy_backward", fake_backward)
    torch.library.register_autograd(f"{namespace}::upsample_cross_entropy", gradients, setup_context=setup_context)

    def run(
        logits: Tensor,
        target: Tensor,
        confidence: Tensor | None,
        threshold: float,
        pixel_weight: Tensor | None,
        class_weight: Tensor | None,
        ignore_index: int,
        label_smoothing: float,
        align_corners: bool,
        per_pixel: bool,
        divisor_of: Divisor | None = None,
    ) -> tuple[Tensor, Tensor]:
        with_gradient = torch.is_grad_enabled() and logits.requires_grad
        inputs = (
            logits, target, confidence, threshold, pixel_weight, class_weight,
            ignore_index, label_smoothing, align_corners, per_pixel, with_gradient,
        )  # fmt: skip
        if with_gradient and _is_eager():
            loss, counts = _Eager.apply(operators, divisor_of, *inputs)
            return loss, counts
        loss, counts, _ = operators.upsample_cross_entropy.default(*inputs)
        return loss if divisor_of is None else loss / divisor_of(counts), counts

    return run


if _library.problems["cpp"] is None:
    _backend.register_compiled("upsample_cross_entropy", attach("maskmatch"))
