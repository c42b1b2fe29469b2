"""The gradients of a step's backward passes, added up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class GradientSum:
    """Adds a backward pass to the gradients before it by one operator, where autograd takes one a parameter.

    The numbers are autograd's own: the sum so far, plus what is new.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters

    def backward(self, loss: Tensor) -> None:
        """`loss.backward()`."""
        before = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        sums, new = [], []
        for parameter, gradient in zip(self.parameters, before, strict=True):
            if gradient is None:
                continue
            if parameter.grad is not None:
                sums.append(gradient)
                new.append(parameter.grad)
            parameter.grad = gradient
        if sums:
            torch._foreach_add_(sums, new)
