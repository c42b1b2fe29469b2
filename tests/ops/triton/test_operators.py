"""Triton's operators in torch's machinery: opcheck, and the schemas of the compiled ones."""

from __future__ import annotations

import pytest
import torch

from maskmatch.ops import info
from maskmatch.ops.triton import INTERPRETED

pytestmark = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="no CUDA device, and the kernels are not interpreted"
)
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
TRITON = torch.ops.maskmatch_triton
NAMES = ("patch_mask", "multiscale_pseudo_label", "upsample_cross_entropy", "upsample_cross_entropy_backward")


@pytest.mark.skipif("cpp" not in info()["available"], reason="no compiled operators")
@pytest.mark.parametrize("name", NAMES)
def test_schema_is_that_of_the_compiled_operator(name: str) -> None:
    def types(namespace: str) -> list[tuple[str, str]]:
        schema = getattr(getattr(torch.ops, namespace), name).default._schema
        return [(argument.name, str(argument.type)) for argument in schema.arguments] + [
            ("", str(result.type)) for result in schema.returns
        ]

    assert types("maskmatch_triton") == types("maskmatch")


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_of_patch_mask(requires_grad: bool) -> None:
    images = torch.rand(2, 3, 5, 7, device=DEVICE).contiguous(memory_format=torch.channels_last)
    arguments = (4, 0.5, torch.tensor([1, 2], device=DEVICE), "random", [0.5] * 3, [0.5] * 3, [0.5] * 3)
    torch.library.opcheck(TRITON.patch_mask, (images.requires_grad_(requires_grad), *arguments))


@pytest.mark.parametrize("average", ["probability", "logit"])
def test_opcheck_of_pseudo_label(average: str) -> None:
    scales = [torch.randn(2, 3, 2, 3, device=DEVICE), torch.randn(2, 3, 4, 2, device=DEVICE)]
    torch.library.opcheck(TRITON.multiscale_pseudo_label, (scales, 5, 6, [0, 1], [0.5, 0.5], average, False))


@pytest.mark.parametrize("normalize", ["all", "given", "none"])
def test_opcheck_of_cross_entropy(normalize: str) -> None:
    logits = torch.randn(1, 3, 2, 3, dtype=torch.bfloat16, device=DEVICE)
    target, confidence = torch.randint(0, 3, (1, 5, 6), device=DEVICE), torch.rand(1, 5, 6, device=DEVICE)
    options = (confidence, 0.5, torch.rand(1, 5, 6, device=DEVICE), torch.rand(3, device=DEVICE), 255, 0.1, False)
    divided = (normalize, torch.tensor(7.0, device=DEVICE) if normalize == "given" else None)
    with_gradient = (logits.clone().requires_grad_(), target, *options, *divided, True)
    torch.library.opcheck(TRITON.upsample_cross_entropy, with_gradient)
    torch.library.opcheck(TRITON.upsample_cross_entropy, (logits, target, *options, *divided, False))
    backward = (torch.rand(1, 5, 6, device=DEVICE), logits, target, torch.rand(1, 5, 6, device=DEVICE), *options)
    torch.library.opcheck(TRITON.upsample_cross_entropy_backward, backward)
