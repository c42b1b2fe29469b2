"""The operators in torch's machinery: opcheck, torch.compile, torch.export, autocast, and who owns the gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from maskmatch.nn import PatchMask
from maskmatch.ops import info, multiscale_pseudo_label, patch_mask, upsample_cross_entropy, use_backend

compiled_only = pytest.mark.skipif("cpp" not in info()["available"], reason="no compiled operators")


@compiled_only
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_opcheck_of_patch_mask(requires_grad: bool, channels_last: bool) -> None:
    images = torch.rand(2, 3, 10, 11)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    arguments = (4, 0.5, torch.tensor([1, 2]), "random", [0.5] * 3, [0.5] * 3, [0.5] * 3)
    torch.library.opcheck(torch.ops.maskmatch.patch_mask, (images.requires_grad_(requires_grad), *arguments))
    if not requires_grad:
        torch.library.opcheck(torch.ops.maskmatch.patch_mask, ((images.detach() * 255).byte(), *arguments))


@compiled_only
def test_opcheck_of_pseudo_label() -> None:
    scales = [torch.randn(2, 3, 4, 5), torch.randn(2, 3, 6, 7)]
    for average in ("probability", "logit"):
        torch.library.opcheck(
            torch.ops.maskmatch.multiscale_pseudo_label, (scales, 9, 10, [0, 1], [0.5, 0.5], average, False)
        )


@compiled_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("normalize", ["all", "given", "none"])
def test_opcheck_of_cross_entropy(normalize: str, dtype: torch.dtype) -> None:
    logits = torch.randn(2, 3, 4, 5, dtype=dtype, requires_grad=True)
    target, confidence = torch.randint(0, 3, (2, 9, 10)), torch.rand(2, 9, 10)
    options = (confidence, 0.5, torch.rand(2, 9, 10), torch.rand(3), 255, 0.1, False)
    divided = (normalize, torch.tensor(7.0) if normalize == "given" else None)
    torch.library.opcheck(torch.ops.maskmatch.upsample_cross_entropy, (logits, target, *options, *divided, True))
    torch.library.opcheck(
        torch.ops.maskmatch.upsample_cross_entropy, (logits.detach(), target, *options, *divided, False)
    )
    torch.library.opcheck(
        torch.ops.maskmatch.upsample_cross_entropy_backward,
        (torch.rand(2, 9, 10), logits.detach(), target, torch.rand(2, 9, 10), *options),
    )


@pytest.fixture
def backend(backend: torch.device) -> torch.device:
    if info()["backend"] not in ("reference", "cpp", "cuda", "triton"):
        pytest.skip("emulated kernels are not torch's operators")
    return backend


class Step(nn.Module):
    """From images to a scalar loss by way of all three operators."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.student = (nn.Conv2d(3, 4, 3, stride=4, padding=1) for _ in range(2))

    def forward(self, images: Tensor, seeds: Tensor) -> Tensor:
        size = images.shape[-2:]
        masked, _ = patch_mask(images, 8, mask_ratio=0.5, seeds=seeds)
        plain, _ = patch_mask(images, 8, mask_ratio=0.0)
        with torch.no_grad():
            scales = [self.teacher(plain), self.teacher(plain.flip(-1))]
            target, confidence = multiscale_pseudo_label(scales, size, flipped=[False, True])
        logits = self.student(masked)
        loss = upsample_cross_entropy(logits, target, confidence=confidence, threshold=0.3)
        pixels = upsample_cross_entropy(logits, target, normalize="none", label_smoothing=0.1)
        return loss + 0.1 * pixels.flatten().topk(50).values.mean()


def compare_with_eager(compiled: Callable[..., Tensor], step: Step, device: torch.device) -> None:
    for count, side in ((2, 33), (3, 40)):
        images = torch.randint(0, 256, (count, 3, side, side + 7), dtype=torch.uint8, device=device)
        seeds = torch.arange(count, device=device)
        expected, got = step(images, seeds), compiled(images, seeds)
        torch.testing.assert_close(got, expected)
        parameters = list(step.student.parameters())
        for a, b in zip(torch.autograd.grad(got, parameters), torch.autograd.grad(expected, parameters), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dynamic", [False, True])
def test_traced_step_gives_the_same_numbers(fast_backend: torch.device, dynamic: bool) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    step = Step().to(fast_backend)
    traced = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    compare_with_eager(traced, step, fast_backend)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reference", "cpp"])
def test_compiled_step_gives_the_same_numbers(name: str) -> None:
    if name not in info()["available"]:
        pytest.skip("no compiled operators")
    torch.manual_seed(0)
    torch._dynamo.reset()
    step = Step()
    with use_backend(name):
        compare_with_eager(torch.compile(step, fullgraph=True, dynamic=False), step, torch.device("cpu"))


@pytest.mark.parametrize("dynamic", [False, True])
def test_export_of_a_module_with_patch_mask(backend: torch.device, dynamic: bool) -> None:
    images = torch.randint(0, 256, (2, 3, 33, 35), dtype=torch.uint8, device=backend)
    seeds = torch.tensor([4, 5], device=backend)
    shapes = None
    if dynamic:
        batch = torch.export.Dim("batch", min=1, max=64)
        shapes = {"images": {0: batch}, "seeds": {0: batch}}
    program = torch.export.export(PatchMask(8, 0.5), (images, seeds), dynamic_shapes=shapes)
    expected = PatchMask(8, 0.5)(images, seeds)
    torch.testing.assert_close(program.module()(images, seeds), expected)
    if dynamic:
        torch.testing.assert_close(program.module()(images[:1], seeds[:1])[0], expected[0][:1])


def test_autocast_leaves_the_operators_alone(backend: torch.device) -> None:
    logits = torch.randn(1, 3, 4, 4, device=backend)
    target = torch.zeros(1, 9, 9, dtype=torch.uint8, device=backend)
    expected = upsample_cross_entropy(logits, target)
    with torch.autocast(backend.type, dtype=torch.bfloat16):
        torch.testing.assert_close(upsample_cross_entropy(logits, target), expected, rtol=1e-6, atol=0)
        half = logits.bfloat16().requires_grad_()
        loss = upsample_cross_entropy(half, target)
    loss.backward()
    assert loss.dtype == torch.float32 and half.grad.dtype == torch.bfloat16


def test_gradients_add_up_and_can_be_asked_for_twice(backend: torch.device) -> None:
    logits = torch.randn(1, 3, 4, 4, device=backend, requires_grad=True)
    target = torch.randint(0, 3, (1, 9, 9), device=backend)
    for normalize in ("all", "none"):
        loss = upsample_cross_entropy(logits, target, normalize=normalize).mean()
        (once,) = torch.autograd.grad(loss, logits, retain_graph=True)
        (twice,) = torch.autograd.grad(loss * 2, logits)
        torch.testing.assert_close(twice, once * 2)
    with torch.no_grad():
        assert not upsample_cross_entropy(logits, target).requires_grad
    label, confidence = multiscale_pseudo_label([logits], (9, 9))
    assert not confidence.requires_grad and not label.requires_grad


def test_images_gradients(backend: torch.device) -> None:
    images = torch.rand(1, 3, 8, 8, device=backend, requires_grad=True)
    seeds = torch.tensor([3], device=backend)
    output, grid = patch_mask(images, 4, mask_ratio=0.5, seeds=seeds, std=(0.5, 0.25, 0.1))
    output.sum().backward()
    visible = ~grid.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    expected = visible * torch.tensor([2.0, 4.0, 10.0], device=backend)[:, None, None]
    torch.testing.assert_close(images.grad, expected)


@compiled_only
def test_asking_for_a_gradient_that_was_not_prepared() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    target = torch.zeros(1, 9, 9, dtype=torch.uint8)
    loss, _, _ = torch.ops.maskmatch.upsample_cross_entropy(
        logits, target, None, 0.0, None, None, 255, 0.0, False, "all", None, False
    )
    with pytest.raises(RuntimeError, match="with_gradient=False"):
        loss.backward()


@compiled_only
@pytest.mark.parametrize("normalize", ["all", "none"])
def test_second_derivatives_are_refused(normalize: str) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = upsample_cross_entropy(logits, torch.zeros(1, 9, 9, dtype=torch.uint8), normalize=normalize).sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, logits, create_graph=True)
