"""`maskmatch.ops.patch_mask` as a module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from maskmatch.ops import IMAGENET_MEAN, IMAGENET_STD, patch_mask


class PatchMask(nn.Module):
    """Normalises images and hides patches of them; the arguments are those of `maskmatch.ops.patch_mask`."""

    def __init__(
        self,
        patch_size: int,
        mask_ratio: float,
        *,
        strategy: str = "random",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        fill: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.patch_size, self.mask_ratio, self.strategy = patch_size, mask_ratio, strategy
        self.mean, self.std, self.fill = mean, std, fill

    def forward(self, images: Tensor, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images [N, C, H, W] and seeds int64 [N] -> normalised images and the patch grid."""
        return patch_mask(
            images,
            self.patch_size,
            mask_ratio=self.mask_ratio,
            seeds=seeds,
            strategy=self.strategy,
            mean=self.mean,
            std=self.std,
            fill=self.fill,
        )

    def extra_repr(self) -> str:
        return f"patch_size={self.patch_size}, mask_ratio={self.mask_ratio}, strategy={self.strategy!r}"
