"""L_r, the alternative that MaskMatch is compared with: paint the hidden patches instead of labelling them.

A head of one convolution reads the decoder's features beside the segmentation head. It belongs to the training alone:
the network's own modules, names and weights stay what they are.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskmatch.common.errors import UserError

CHANNELS = 3  # of an image


class ReconstructionHead(nn.Module):
    """Features [N, F, h, w] -> images [N, 3, h, w], normalised as the network's inputs are."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(features, CHANNELS, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        painted: Tensor = self.convolution(features)
        return painted


def head_for(network: nn.Module) -> ReconstructionHead:
    """A head for a network; UserError where that has no `segmentation_head` to stand beside."""
    own: nn.Module = getattr(network, "segmentation_head", nn.Identity())
    convolution = next((module for module in own.modules() if isinstance(module, nn.Conv2d)), None)
    if convolution is None:
        raise UserError(
            "method.ablation.reconstruction needs a network with a segmentation_head that its own head can stand "
            f"beside, as those of segmentation_models.pytorch, got {type(network).__name__}"
        )
    head, device = ReconstructionHead(convolution.in_channels), convolution.weight.device
    # Not even to where it is: the fake tensors of --dry_run refuse it.
    return head if device.type == "cpu" else head.to(device)


def with_head(network: nn.Module, head: ReconstructionHead) -> nn.Module:
    """A network of the same modules and weights that returns the logits and then the image: [N, C + 3, h, w]."""
    parts = [*network.children(), *network.parameters(recurse=False), *network.buffers(recurse=False)]
    both = copy.deepcopy(network, memo={id(part): part for part in parts})  # the parts are taken over, not copied
    both.segmentation_head = _BothHeads(network.get_submodule("segmentation_head"), head)
    return both


class _BothHeads(nn.Module):
    def __init__(self, segmentation: nn.Module, reconstruction: nn.Module) -> None:
        super().__init__()
        self.segmentation, self.reconstruction = segmentation, reconstruction

    def forward(self, features: Tensor) -> Tensor:
        logits, painted = self.segmentation(features), self.reconstruction(features)
        if painted.shape[2:] != logits.shape[2:]:
            painted = F.interpolate(painted, logits.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([logits, painted], 1)


def reconstruction_loss(
    painted: Tensor, image: Tensor, where: Tensor, divisor: Tensor, *, align_corners: bool
) -> Tensor:
    """The squared error of the pixels `where` the image was hidden, its mean over the channels, over `divisor`.

    Args:
        painted: [N, 3, h, w].
        image: float32 [N, 3, H, W], normalised.
        where: float32 [N, H, W], 1 or 0.
        divisor: scalar; the number of these pixels makes it a mean.
        align_corners: how `painted` is to be upsampled.

    Returns:
        A float32 scalar.
    """
    painted = F.interpolate(painted.float(), image.shape[2:], mode="bilinear", align_corners=align_corners)
    return ((painted - image).square().mean(1) * where).sum() / divisor.clamp(min=1)
