"""Random numbers from seeds: what they depend on, and the same bits from compiled code."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskmatch.ops import info, philox, uniform, use_backend
from tools.emulator import emulated

compiled_only = pytest.mark.skipif("cpp" not in info()["available"], reason="no compiled operators")
BACKENDS = pytest.mark.parametrize("backend", ["reference", pytest.param("cpp", marks=compiled_only)])
INT64 = st.integers(-(2**63), 2**63 - 1)


@BACKENDS
def test_numbers_depend_on_seed_and_stream_alone(backend: str) -> None:
    seeds = torch.tensor([3, -7, 2**61])
    with use_backend(backend):
        drawn = uniform(seeds, 1001, stream=5)
        assert drawn.dtype == torch.float32 and drawn.shape == (3, 1001)
        assert torch.equal(uniform(seeds[1:2], 6, stream=5), drawn[1:2, :6])
        assert not torch.equal(uniform(seeds, 6, stream=4), drawn[:, :6])
    assert drawn.min() >= 0 and drawn.max() < 1
    assert (drawn.mean(dim=1) - 0.5).abs().max() < 0.05
    assert torch.corrcoef(drawn).triu(1).abs().max() < 0.15


@BACKENDS
@given(seeds=st.lists(INT64, max_size=5), count=st.integers(0, 20), stream=st.integers(0, 2**32 - 1))
def test_numbers_are_drawn_from_the_words_of_the_generator(
    backend: str, seeds: list[int], count: int, stream: int
) -> None:
    keys = torch.tensor(seeds, dtype=torch.int64)
    strided = torch.stack([keys, ~keys], 1)[:, 0]
    with use_backend(backend):
        assert torch.equal(uniform(strided, count, stream), from_words(keys, count, stream))


def from_words(keys: Tensor, count: int, stream: int) -> Tensor:
    words = philox.philox4x32(keys[:, None], torch.arange(-(-count // 4)), stream, philox.UNIFORM_DOMAIN)
    return (torch.stack(words, -1).flatten(1)[:, :count] >> 8).float() * 2.0**-24


@pytest.mark.skipif(emulated.compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (16, 5), (70, 9)], ids=str)
def test_the_cuda_kernel_draws_the_same_numbers(shape: tuple[int, int]) -> None:
    rows, count = shape
    seeds = torch.arange(rows) * (2**57 + 3) - 2**62
    with emulated.backend(order=1) as emulator:
        assert torch.equal(emulator.uniform(seeds, count, stream=2**32 - 1), from_words(seeds, count, 2**32 - 1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_numbers_on_a_device() -> None:
    seeds = torch.arange(-5, 200)
    assert torch.equal(uniform(seeds.cuda(), 9, 7).cpu(), from_words(seeds, 9, 7))


@compiled_only
def test_opcheck() -> None:
    torch.library.opcheck(torch.ops.maskmatch.uniform, (torch.tensor([1, -2]), 5, 3))


def test_wrong_arguments() -> None:
    seeds = torch.tensor([1])
    with pytest.raises(TypeError, match=r"seeds must be int64, got torch\.float32"):
        uniform(torch.zeros(3), 2)
    with pytest.raises(ValueError, match=r"seeds must be \[N\], got \[1, 1\]"):
        uniform(seeds[None], 2)
    with pytest.raises(ValueError, match=r"count must be in \[0, 2147483647\], got -1"):
        uniform(seeds, -1)
    with pytest.raises(ValueError, match=r"stream must be in \[0, 4294967295\], got -1"):
        uniform(seeds, 2, stream=-1)


@compiled_only
@pytest.mark.parametrize(
    "arguments",
    [(torch.zeros(2), 2, 0), (torch.zeros(1, 2).long(), 2, 0), (torch.tensor([1]), -1, 0), (torch.tensor([1]), 2, -1)],
)
def test_the_operator_itself_reads_nothing_out_of_bounds(arguments: tuple[object, ...]) -> None:
    with pytest.raises(RuntimeError):
        torch.ops.maskmatch.uniform(*arguments)
