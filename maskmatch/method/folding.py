"""The teacher without its BatchNorms: in eval mode one is a scale and a shift, which the convolution before it can do.

    BatchNorm(conv(x; W, b)) = conv(x; s W, s (b - mean) + beta),    s = gamma / sqrt(var + eps), a number each channel

Of an unknown network nobody can read which convolution is whose; so a copy of it is watched in a forward, folded, and
held beside itself.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

TOLERANCE = 1e-9  # of float64: what is folded rightly adds the same numbers up in another order


class Fold(NamedTuple):
    """Two modules of a network by their names, the second right behind the first."""

    convolution: str
    norm: str


class FoldedNetwork:
    """A network in eval mode by fewer operators: `network` gives its answers, once `refresh` has been called.

    What is not folded it shares with the original, which stays as it is: what is trained, saved and validated.

    Args:
        original: the network, in eval mode, on its device; to replace its tensors or layers, make a new one of these.
        folds: one at least, as `find_folds` gives them.
    """

    def __init__(self, original: nn.Module, folds: Sequence[Fold]) -> None:
        pairs: list[Any] = [(original.get_submodule(before), original.get_submodule(norm)) for before, norm in folds]
        shared = {id(tensor): tensor for tensor in chain(original.parameters(), original.buffers())}
        rest = {id(norm): nn.Sequential(*norm.children()) for _, norm in pairs}  # timm's have an activation in them
        copied: dict[int, Any] = {**shared, **rest}
        self.network = copy.deepcopy(original, copied)

        sizes = [norm.num_features for _, norm in pairs]
        like = pairs[0][1].running_var
        # Of all channels in one memory: gamma, beta, mean and variance; the convolution's own bias.
        self._channels = torch.stack([like.new_full((sum(sizes),), value) for value in (1, 0, 0, 1, 0)])
        self._eps = torch.cat([like.new_full((size,), norm.eps) for size, (_, norm) in zip(sizes, pairs, strict=True)])
        self._scale, self._bias = torch.empty_like(self._eps), torch.empty_like(self._eps)
        numbers = [(norm.weight, norm.bias, norm.running_mean, norm.running_var, before.bias) for before, norm in pairs]
        places = zip(*(row.split(sizes) for row in self._channels), strict=True)
        moves = [
            (place, tensor) for move in zip(places, numbers, strict=True) for place, tensor in zip(*move, strict=True)
        ]
        self._places = [place for place, tensor in moves if tensor is not None]
        self._numbers = [tensor for _, tensor in moves if tensor is not None]
        self._scales = [scale.view(-1, 1, 1, 1) for scale in self._scale.split(sizes)]
        self._originals = [before.weight for before, _ in pairs]
        self._weights = [torch.empty_like(weight) for weight in self._originals]
        for (before, _), weight, bias in zip(pairs, self._weights, self._bias.split(sizes), strict=True):
            folded = copied[id(before)]
            folded.weight, folded.bias = (nn.Parameter(tensor, requires_grad=False) for tensor in (weight, bias))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over what the original holds now."""
        torch._foreach_copy_(self._places, self._numbers)
        gamma, beta, mean, variance, bias = self._channels.unbind()
        torch.mul(gamma, (variance + self._eps).rsqrt(), out=self._scale)
        torch.addcmul(beta, bias - mean, self._scale, out=self._bias)
        torch._foreach_copy_(self._weights, self._originals)
        torch._foreach_mul_(self._weights, self._scales)


def find_folds(network: nn.Module, size: int) -> list[Fold]:
    """The BatchNorms that can be folded in eval mode; none where anything says that the network would not be the same.

    A copy in float64 on the CPU, with statistics and weights drawn at random, is asked before and after.

    Args:
        network: gives one tensor for images [N, 3, `size`, `size`]; nothing of it is changed.
        size: height and width that it takes.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, size, size, dtype=torch.float64, generator=generator)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            trial = copy.deepcopy(network).to("cpu", torch.float64).eval().requires_grad_(False)
            watch = _Watch(trial, generator)
            expected = trial(image)
            folds = watch.end()
            if not folds:
                return []
            folded = FoldedNetwork(trial, folds)
            folded.refresh()
            unlike = (folded.network(image) - expected).abs().max()
        except Exception:  # whatever a network of one's own raises on a CPU, or in float64
            return []
    return folds if unlike <= TOLERANCE * expected.abs().max() else []


class _Watch:
    """Notes in a forward what comes before each BatchNorm, and gives it statistics and weights like trained ones."""

    def __init__(self, network: nn.Module, generator: torch.Generator) -> None:
        self._names = {module: name for name, module in network.named_modules()}
        self._generator = generator
        self._calls: Counter[nn.Module] = Counter()
        self._made: dict[int, tuple[nn.Module, Tensor]] = {}  # by convolutions; kept, so that no id comes twice
        self._before: dict[nn.Module, nn.Module] = {}
        self._hooks = []
        for module in self._names:
            # A weight that is computed at each forward, as by torch's parametrizations, is not in `_parameters`.
            if isinstance(module, nn.Conv2d) and "weight" in module._parameters:
                self._hooks.append(module.register_forward_hook(self._convolved))
            elif isinstance(module, _BatchNorm) and module.running_mean is not None:
                self._hooks.append(module.register_forward_pre_hook(self._normalizes))

    def end(self) -> list[Fold]:
        """What can be tried, once the forward is done."""
        for hook in self._hooks:
            hook.remove()
        return [
            Fold(self._names[before], self._names[norm])
            for norm, before in self._before.items()
            if self._calls[norm] == self._calls[before] == 1
        ]

    def _convolved(self, convolution: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._calls[convolution] += 1
        self._made[id(output)] = convolution, output

    def _normalizes(self, norm: Any, inputs: tuple[Tensor, ...]) -> None:
        (features,) = inputs
        self._calls[norm] += 1
        if self._calls[norm] > 1:  # its numbers must stay those of its first call
            return
        if id(features) in self._made:
            self._before[norm] = self._made[id(features)][0]
        others = [axis for axis in range(features.dim()) if axis != 1]
        mean, square = features.mean(others), features.square().mean(others) + 1e-3
        norm.running_mean.copy_(mean * self._like(mean, 0.5, 1.5))
        # No less, or roundings would grow from norm to norm.
        norm.running_var.copy_(square * self._like(mean, 0.5, 2.0))
        if norm.affine:
            norm.weight.copy_(self._like(mean, 0.5, 1.5))
            norm.bias.copy_(self._like(mean, -0.5, 0.5))

    def _like(self, tensor: Tensor, low: float, high: float) -> Tensor:
        return torch.empty_like(tensor).uniform_(low, high, generator=self._generator)
