"""One step of MaskMatch (arXiv 2312.08631): from a batch to its losses.

p    = mean over scales s of softmax(resize(T(resize(u_w, s)), crop))    the teacher's probabilities
q, c = argmax p, max p                                                   pseudo-label, confidence
L    = CE(S(x), y)                                    L_x, supervised
     + lambda_u * mean of [c >= tau] * CE(S(u_s), q)  L_u, consistency under strong augmentation and CutMix
     + lambda_m * mean of [c >= tau] * CE(S(u_m), q)  L_m, local consistency under patch masking
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskmatch.batch import IGNORE_INDEX, Batch
from maskmatch.config import MethodConfig
from maskmatch.method.batchnorm import running_statistics
from maskmatch.method.cutmix import cutmix_boxes, mix
from maskmatch.method.teacher import Teacher
from maskmatch.ops import multiscale_pseudo_label, patch_mask, upsample_cross_entropy


class PseudoLabels(NamedTuple):
    """What the teacher says of the weak views."""

    label: Tensor  # uint8 [M, H, W], IGNORE_INDEX on padding
    confidence: Tensor  # float32 [M, H, W]


class Losses(NamedTuple):
    """The losses of one step, scalars on the device; 0 where a branch did not run."""

    total: Tensor
    loss_x: Tensor
    loss_u: Tensor
    loss_m: Tensor


class MaskMatch:
    """The method for one network: how views are normalised, sized, labelled and scored.

    Args:
        config: the method's options.
        mean, std: of the images the network was made for, in units of [0, 1] images.
        size_multiple, min_size: image sizes must be multiples of the one and at least the other; the teacher's
            scales are rounded accordingly.
        align_corners: how the network's logits are to be upsampled.
    """

    def __init__(
        self,
        config: MethodConfig,
        *,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        size_multiple: int = 1,
        min_size: int = 1,
        align_corners: bool = False,
    ) -> None:
        self.config = config
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.size_multiple = size_multiple
        self.min_size = min_size
        self.align_corners = align_corners

    def __call__(self, student: nn.Module, teacher: Teacher, batch: Batch, step: int) -> Losses:
        """All losses of a batch in one graph. `branches` gives them one by one and needs less memory."""
        losses = {name: (weight, loss) for name, weight, loss in self.branches(student, teacher, batch, step)}
        zero = batch.images.new_zeros((), dtype=torch.float32)
        total = sum((weight * loss for weight, loss in losses.values()), start=zero)
        parts = (losses.get(name, (0.0, zero))[1] for name in ("loss_x", "loss_u", "loss_m"))
        return Losses(total, *parts)

    def branches(
        self,
        student: nn.Module,
        teacher: Teacher,
        batch: Batch,
        step: int,
        pseudo: PseudoLabels | None = None,
    ) -> Iterator[tuple[str, float, Tensor]]:
        """Yield (name, weight, loss) for each branch that counts at this step, each with a graph of its own.

        A branch's forward runs when it is asked for, so that one can call backward before the next.
        `pseudo` are the batch's pseudo-labels where the caller has them already.
        """
        yield "loss_x", 1.0, self.supervised_loss(student, batch)
        ramp = self.ramp(step)
        if ramp == 0:
            return
        pseudo = pseudo or self.pseudo_labels(teacher, batch)
        if self.config.consistency:
            yield "loss_u", ramp * self.config.lambda_u, self.consistency_loss(student, batch, pseudo)
        if self.config.lcr:
            yield "loss_m", ramp * self.config.lambda_m, self.masked_loss(student, batch, pseudo)

    def ramp(self, step: int) -> float:
        """Factor of the unlabelled losses: 0 in the warm-up, then rising linearly to 1."""
        config = self.config
        warmup, ramp = config.warmup_steps or 0, config.ramp_steps or 0
        if step < warmup or config.supervised_only or not (config.consistency or config.lcr):
            return 0.0
        return min(1.0, (step - warmup + 1) / ramp) if ramp else 1.0

    def supervised_loss(self, student: nn.Module, batch: Batch) -> Tensor:
        """L_x."""
        logits = student(self.normalize(batch.images))
        return upsample_cross_entropy(logits, batch.target, align_corners=self.align_corners)

    @torch.no_grad()
    def pseudo_labels(self, teacher: Teacher, batch: Batch) -> PseudoLabels:
        """The teacher's labels of the weak views, averaged over the scales."""
        weak = self.normalize(_required(batch.weak))
        size = (weak.shape[2], weak.shape[3])
        logits = [teacher(self._resize(weak, scale)) for scale in self.config.scales]
        label, confidence = multiscale_pseudo_label(
            logits, size, average=self.config.average, align_corners=self.align_corners
        )
        return PseudoLabels(label.masked_fill(~_required(batch.valid), IGNORE_INDEX), confidence)

    def consistency_loss(self, student: nn.Module, batch: Batch, pseudo: PseudoLabels) -> Tensor:
        """L_u: the strong views, mixed by CutMix together with their pseudo-labels."""
        strong = _required(batch.strong)
        if self.config.cutmix:
            boxes = cutmix_boxes(_required(batch.seeds), strong.shape[2], strong.shape[3])
            strong = mix(boxes, strong)
            pseudo = PseudoLabels(mix(boxes, pseudo.label), mix(boxes, pseudo.confidence))
        with running_statistics(student, update=self.config.strong_updates_bn):
            logits = student(self.normalize(strong))
        return self._pseudo_label_loss(logits, pseudo)

    def masked_loss(self, student: nn.Module, batch: Batch, pseudo: PseudoLabels) -> Tensor:
        """L_m: a view with patches hidden must still give the labels, of the hidden pixels too."""
        config = self.config
        view = _required(batch.weak if config.masked_view == "weak" else batch.strong)
        masked, grid = patch_mask(
            view,
            config.patch_size,
            mask_ratio=config.mask_ratio,
            seeds=_required(batch.seeds),
            strategy=config.masking,
            mean=self.mean,
            std=self.std,
        )
        if config.region != "all":
            hidden = grid.repeat_interleave(config.patch_size, 1).repeat_interleave(config.patch_size, 2)
            hidden = hidden[:, : view.shape[2], : view.shape[3]]
            outside = hidden if config.region == "visible" else ~hidden
            pseudo = pseudo._replace(label=pseudo.label.masked_fill(outside, IGNORE_INDEX))
        with running_statistics(student, update=config.masked_updates_bn):
            logits = student(masked)
        return self._pseudo_label_loss(logits, pseudo)

    def coverage(self, pseudo: PseudoLabels) -> Tensor:
        """Share of the unlabelled pixels whose pseudo-label is confident enough to count; scalar."""
        valid = pseudo.label != IGNORE_INDEX
        confident = valid & (pseudo.confidence >= self.config.threshold)
        return confident.sum() / valid.sum().clamp(min=1)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> what the network takes, float32: patch masking with nothing hidden."""
        return patch_mask(images, max(images.shape[2:]), mask_ratio=0.0, mean=self.mean, std=self.std)[0]

    def _pseudo_label_loss(self, logits: Tensor, pseudo: PseudoLabels) -> Tensor:
        return upsample_cross_entropy(
            logits,
            pseudo.label,
            confidence=pseudo.confidence,
            threshold=self.config.threshold,
            align_corners=self.align_corners,
        )

    def _resize(self, images: Tensor, scale: float) -> Tensor:
        multiple = self.size_multiple
        least = -(-self.min_size // multiple)
        height, width = (max(least, round(side * scale / multiple)) * multiple for side in images.shape[2:])
        if (height, width) == tuple(images.shape[2:]):
            return images
        return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)


def _required(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("the batch has no unlabelled images, which every loss but the supervised one needs")
    return tensor
