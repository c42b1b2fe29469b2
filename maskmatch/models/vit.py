"""ViT encoders that leave hidden patches out, as masked autoencoders do (He et al., 2022).

Attention over the visible tokens alone costs a part of that over all; the decoder gets zeros in the places of the
others. The network has the modules, names and weights of the one in segmentation_models.pytorch.
"""

from __future__ import annotations

from typing import Any, cast

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.base import SegmentationModel
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from segmentation_models_pytorch.encoders.timm_vit import TimmViTEncoder
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class DPT(smp.DPT):
    """The DPT of segmentation_models.pytorch, which can also be told which patches are hidden."""

    def forward(self, images: Tensor, hidden: tuple[Tensor, int] | None = None) -> Tensor:
        """Logits of normalised images [N, 3, H, W].

        Args:
            images: H and W are multiples of the patch's side.
            hidden: the patch grid, bool [N, rows, columns], True for patches to leave out, and the number of the
                others, which is the same in every image. `drop_hidden_tokens` says for which encoders.
        """
        if hidden is None:
            return super().forward(images)
        self.check_input_shape(images)
        features, prefixes = _encode_visible(self.encoder, images, *hidden)
        return self.segmentation_head(self.decoder(features, prefixes))


def repair_decoder(network: SegmentationModel) -> None:
    """Give a DPT with patches of 14 pixels, as DINOv2's, a decoder that fits.

    segmentation_models.pytorch scales the features by powers of two relative to the patch, which are whole for 8, 16
    and 32 alone. DPT itself takes those of 16 whatever the patch is (Ranftl et al., 2021).
    """
    if not isinstance(network, DPT) or all(stride in (8, 16, 32) for stride in network.encoder.output_strides):
        return
    old = network.decoder
    network.decoder = DPTDecoder(
        encoder_out_channels=network.encoder.out_channels,
        encoder_output_strides=[16] * len(network.encoder.output_strides),
        encoder_has_prefix_tokens=network.encoder.has_prefix_tokens,
        intermediate_channels=[block.project_to_out_channel.out_channels for block in old.reassemble_blocks],
        fusion_channels=old.fusion_blocks[0].project.out_channels,
    )
    network.initialize()


def drop_hidden_tokens(network: nn.Module) -> int | None:
    """Prepare the network for `hidden` patches, where its encoder can leave them out.

    Returns:
        The side of a token in pixels, of which that of a patch must be a multiple; None where it cannot.
    """
    if not isinstance(network, DPT):
        return None
    model = cast(Any, network.encoder.model)  # a module's attributes are unknown to the type checker
    if type(model) not in (VisionTransformer, Eva):
        return None
    model.patch_drop = _TokenSlot(model.num_prefix_tokens, returns_indices=isinstance(model, Eva))
    return int(model.patch_embed.patch_size[0])


def _encode_visible(encoder: TimmViTEncoder, images: Tensor, grid: Tensor, visible: int) -> Any:
    """What the encoder returns, features and prefix tokens, with zeros in the features of hidden patches."""
    model = cast(Any, encoder.model)
    size = model.patch_embed.dynamic_feat_size(images.shape[2:])
    places = _visible_tokens(grid, visible, size)
    model.patch_drop.visible = places
    outputs = model.forward_intermediates(
        images,
        indices=encoder._output_indices,
        intermediates_only=True,
        return_prefix_tokens=encoder.has_prefix_tokens,
        output_fmt="NLC",
    )
    model.patch_drop.visible = None
    if not encoder.has_prefix_tokens:
        outputs = [(tokens, None) for tokens in outputs]
    return [_spread(tokens, places, *size) for tokens, _ in outputs], [prefix for _, prefix in outputs]


class _TokenSlot(nn.Module):
    """What stands in timm's place for dropping patches; it passes all of them on unless it has `visible`."""

    def __init__(self, prefix_tokens: int, *, returns_indices: bool) -> None:
        super().__init__()
        self.prefix_tokens, self.returns_indices = prefix_tokens, returns_indices
        self.visible: Tensor | None = None  # int64 [N, V], places of the tokens to keep, without the prefix

    def forward(self, tokens: Tensor) -> Any:
        if self.visible is not None:
            prefix, patches = tokens[:, : self.prefix_tokens], tokens[:, self.prefix_tokens :]
            kept = patches.gather(1, self.visible[..., None].expand(-1, -1, patches.shape[-1]))
            tokens = torch.cat([prefix, kept], 1)
        return (tokens, self.visible) if self.returns_indices else tokens


def _visible_tokens(grid: Tensor, visible: int, size: tuple[int, int]) -> Tensor:
    """Places of the visible patches' tokens in a grid of `size`, int64 [N, V]; nothing waits for the device."""
    rows, columns = size
    by_row, by_column = rows // grid.shape[1], columns // grid.shape[2]
    if (grid.shape[1] * by_row, grid.shape[2] * by_column) != (rows, columns):
        raise ValueError(f"a patch must be made of whole tokens, got {list(grid.shape[1:])} of {rows}x{columns}")
    hidden = grid.repeat_interleave(by_row, 1).repeat_interleave(by_column, 2).flatten(1)
    return hidden.int().argsort(dim=1, stable=True)[:, : visible * by_row * by_column]


def _spread(tokens: Tensor, places: Tensor, rows: int, columns: int) -> Tensor:
    """Tokens [N, V, C] at their places among zeros, [N, C, rows, columns]."""
    spread = tokens.new_zeros(tokens.shape[0], rows * columns, tokens.shape[2])
    spread = spread.scatter(1, places[..., None].expand_as(tokens), tokens)
    return spread.unflatten(1, (rows, columns)).permute(0, 3, 1, 2).contiguous()
