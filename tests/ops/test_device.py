"""What only a device can show: streams, graphs, other devices, waiting, and memory. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from maskmatch.ops import info, multiscale_pseudo_label, patch_mask, upsample_cross_entropy, use_backend

pytestmark = pytest.mark.gpu
N, C, H, W, STRIDE = 4, 21, 321, 320, 8
PIXELS, INPUTS = N * H * W, N * C * (H // STRIDE + 1) * (W // STRIDE + 1)
MIB = 2**20


@pytest.fixture(params=["cuda", "triton"])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if request.param not in info()["available"]:
        pytest.skip(f"backend {request.param}: {info()['problems'].get(request.param)}")
    with use_backend(request.param):
        yield torch.device("cuda", torch.cuda.current_device())


def inputs(device: torch.device, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {
        "images": torch.randint(0, 256, (N, 3, H, W), generator=generator, dtype=torch.uint8),
        "seeds": torch.randint(0, 2**60, (N,), generator=generator),
        "logits": torch.randn(N, C, H // STRIDE + 1, W // STRIDE + 1, generator=generator),
        "target": torch.randint(0, C, (N, H, W), generator=generator, dtype=torch.uint8),
        "confidence": torch.rand(N, H, W, generator=generator),
        "upstream": torch.rand(N, H, W, generator=generator),
    }
    return {name: tensor.to(device) for name, tensor in made.items()}


def mask(given: dict[str, Tensor]) -> list[Tensor]:
    return list(patch_mask(given["images"], 16, mask_ratio=0.7, seeds=given["seeds"]))


def label(given: dict[str, Tensor]) -> list[Tensor]:
    scales = [given["logits"], given["logits"][..., ::2], given["logits"].flip(-1)]
    return list(multiscale_pseudo_label(scales, (H, W), flipped=[False, False, True]))


def summed_loss(given: dict[str, Tensor]) -> list[Tensor]:
    logits = given["logits"].detach().requires_grad_()
    loss = upsample_cross_entropy(logits, given["target"], confidence=given["confidence"], threshold=0.5)
    return [loss.detach(), *torch.autograd.grad(loss, logits)]


def pixel_loss(given: dict[str, Tensor]) -> list[Tensor]:
    logits = given["logits"].detach().requires_grad_()
    loss = upsample_cross_entropy(logits, given["target"], normalize="none", label_smoothing=0.1)
    return [loss.detach(), *torch.autograd.grad(loss, logits, given["upstream"])]


Operator = Callable[[dict[str, Tensor]], list[Tensor]]
operators = pytest.mark.parametrize("operator", [mask, label, summed_loss, pixel_loss])


def assert_same(got: list[Tensor], expected: list[Tensor]) -> None:
    """Bit by bit: no operator's result depends on how its threads are scheduled."""
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a.cpu(), b.cpu())


@operators
def test_same_bits_every_time(device: torch.device, operator: Operator) -> None:
    given = inputs(device)
    expected = operator(given)
    for _ in range(10):
        assert_same(operator(given), expected)


@operators
def test_side_stream(device: torch.device, operator: Operator) -> None:
    """The inputs get their values late on a side stream: work on another stream would see the old ones."""
    given, late = inputs(device, 0), inputs(device, 1)
    expected = operator(late)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        for name, tensor in given.items():
            tensor.copy_(late[name])
        got = operator(given)
    stream.synchronize()
    assert_same(got, expected)


@operators
def test_graph_capture_and_replay(device: torch.device, operator: Operator) -> None:
    given, other = inputs(device, 0), inputs(device, 1)
    expected = operator(other)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            operator(given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = operator(given)
    for name, tensor in given.items():
        tensor.copy_(other[name])
    for _ in range(2):
        graph.replay()
        assert_same(got, expected)


@operators
def test_nothing_waits_for_the_device(device: torch.device, operator: Operator) -> None:
    given = inputs(device)
    operator(given)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        operator(given)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@operators
def test_another_device_than_the_current_one(device: torch.device, operator: Operator) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device only")
    expected = operator(inputs(device))
    got = operator(inputs(torch.device("cuda", 1)))
    assert all(tensor.device.index == 1 for tensor in got)
    assert torch.cuda.current_device() == device.index
    assert_same(got, expected)


# Bytes beside the inputs: results; 4 a pixel of log sum exp; the gradient before and after it is scaled; a copy of the
# logits that are not contiguous. A tensor of classes at full resolution would be 34 MB.
CONTRACT = [
    (mask, PIXELS * 3 * 4 + 3 * MIB),
    (label, PIXELS * 5 + INPUTS * 4 * 2 + MIB),  # with the flipped scale, made by the test
    (summed_loss, PIXELS * 4 + INPUTS * 4 * 3 + MIB),
    (pixel_loss, PIXELS * 8 + INPUTS * 4 * 3 + MIB),
]


@pytest.mark.parametrize(("operator", "limit"), CONTRACT)
def test_memory(device: torch.device, operator: Operator, limit: int) -> None:
    given = inputs(device)
    operator(given)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    operator(given)
    assert torch.cuda.max_memory_allocated() - before <= limit < PIXELS * C * 4


@pytest.mark.slow
def test_compiled_step(device: torch.device) -> None:
    """Inductor, with the operators in the middle of its graph."""

    def step(logits: Tensor, images: Tensor, seeds: Tensor) -> Tensor:
        masked, _ = patch_mask(images, 16, mask_ratio=0.5, seeds=seeds)
        target, confidence = multiscale_pseudo_label([logits.detach() * 2], (H, W))
        loss = upsample_cross_entropy(logits + masked.mean(), target, confidence=confidence, threshold=0.3)
        return loss * 2

    given = inputs(device)
    arguments = [given[name] for name in ("logits", "images", "seeds")]
    arguments[0].requires_grad_()
    results = []
    for function in (step, torch.compile(step, fullgraph=True)):
        loss = function(*arguments)
        results.append((loss, *torch.autograd.grad(loss, arguments[0])))
    torch.testing.assert_close(results[1], results[0])
