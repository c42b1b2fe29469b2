"""One step of MaskMatch (arXiv 2312.08631): from a batch to its losses.

p    = mean over scales s of softmax(resize(T(resize(u_w, s)), crop))    the teacher's probabilities
q, c = argmax p, max p                                                   pseudo-label, confidence
L    = CE(S(x), y)                                    L_x, supervised
     + lambda_u * mean of [c >= tau] * CE(S(u_s), q)  L_u, consistency under strong augmentation and CutMix
     + lambda_m * mean of [c >= tau] * CE(S(u_m), q)  L_m, local consistency under patch masking
     + lambda_r * mean of (R(u_m) - u_w)^2            L_r, reconstruction of the hidden pixels; off by default
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskmatch.common.batch import IGNORE_INDEX, Batch
from maskmatch.config import MethodConfig
from maskmatch.method.batchnorm import running_statistics
from maskmatch.method.branches import BRANCHES, DIVISORS, Branch, Losses, Part, PseudoLabels, summed
from maskmatch.method.class_balance import ClassBalance
from maskmatch.method.cutmix import cutmix_boxes, mix
from maskmatch.method.ramp_up import RampUp
from maskmatch.method.reconstruction import CHANNELS, reconstruction_loss
from maskmatch.method.supervised import SupervisedLoss
from maskmatch.ops import multiscale_pseudo_label, patch_mask, upsample_cross_entropy
from maskmatch.ops.reference import hidden_patches

Phase = Callable[[str], AbstractContextManager[object]]


def _no_phase(name: str) -> AbstractContextManager[object]:
    return nullcontext()


class MaskMatch:
    """The method for one network: how views are normalised, sized, labelled and scored.

    Calling it gives all losses of a batch; `parts` is for a backward after each branch, or several batches as one.

    Args:
        config: the method's options.
        mean: of the images the network was made for, in units of [0, 1] images.
        std: the same.
        size_multiple: image sizes must be multiples of it; the teacher's scales are rounded accordingly.
        min_size: the least height and width.
        align_corners: how the network's logits are to be upsampled.
        leaves_out_hidden: whether the network's forward takes `hidden`, the patch grid and the number of visible
            patches, and encodes those alone (`Student.token_size`); images are then made of whole patches.
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
        leaves_out_hidden: bool = False,
    ) -> None:
        self.config = config
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.size_multiple = size_multiple
        self.min_size = min_size
        self.align_corners = align_corners
        self.leaves_out_hidden = leaves_out_hidden
        self.ramp_up = RampUp(config)
        self.class_balance = ClassBalance(config)
        self.supervised_loss = SupervisedLoss(config.class_weights, config.ohem, align_corners=align_corners)

    def reconfigure(self, config: MethodConfig) -> None:
        """Go on with options that differ in the threshold, the warm-up, the ramp or the weights of the losses alone."""
        self.config, self.ramp_up = config, RampUp(config)

    def __call__(self, student: nn.Module, teacher: Callable[[Tensor], Tensor], batch: Batch, step: int) -> Losses:
        """All losses of a batch in one graph; one branch after the other needs less memory."""
        losses = dict.fromkeys(BRANCHES, batch.images.new_zeros((), dtype=torch.float32))
        totals = []
        for part in self.parts(teacher, [batch], step):
            found = self.losses(self.logits(student, list(part.branches.values())), part)
            losses |= found
            totals.append(part.total(found))
        if self.ramp_up.factor(step):
            self.class_balance.update()
        return Losses(summed(totals), **losses)

    def parts(
        self,
        teacher: Callable[[Tensor], Tensor],
        batches: Sequence[Batch],
        step: int,
        *,
        weights: Mapping[str, float | Tensor] | None = None,
        joint: bool = False,
        total: Callable[[Tensor], Tensor] = lambda counts: counts,
        phase: Phase = _no_phase,
    ) -> Iterator[Part]:
        """A step, one forward of the student after the other: the one place that knows their order.

        Whoever takes a part calls `logits` and `losses` on it, and backward, before the next one is asked for; then
        one graph at a time is kept. `class_balance.update` follows at the end of a step with pseudo-labels.

        Args:
            teacher: gives the logits of the views that it is shown.
            batches: whose losses add up as if they were one.
            step: counted from 0.
            weights: of the losses of this step's branches in the total, for a caller that keeps them on the device.
            joint: all branches of a batch in one part, for a student without BatchNorm.
            total: adds up the counts of `divisors` over what else belongs to the step, such as other processes.
            phase: `with phase("loss")` is around all that is neither the teacher nor the student.
        """
        weights, scales = weights or self.ramp_up.weights(step), self.ramp_up.scales(step)
        with phase("loss"):
            batches = [self.draw(batch) for batch in batches]
            counts = total(torch.stack([self.divisors(batch) for batch in batches]).sum(0))
            divisors = dict(zip(DIVISORS, counts, strict=True))
        groups = [weights] if joint else [{name: weight} for name, weight in weights.items()]
        for index, batch in enumerate(batches):
            pseudo = self.pseudo_labels(teacher, batch, scales, phase) if len(weights) > 1 else None
            with phase("loss"):
                branches = {name: self.branch(name, batch, pseudo) for name in weights}
            for group in groups:
                yield Part(
                    branches={name: branches.pop(name) for name in group},
                    weights=group,
                    divisors=divisors,
                    batch=index,
                    target=batch.target,
                    pseudo=pseudo,
                    first=group is groups[0],
                    last=group is groups[-1] and index == len(batches) - 1,
                )

    def losses(self, logits: Sequence[Tensor], part: Part) -> dict[str, Tensor]:
        """The loss of each branch of a part by its name, from the student's `logits` of it; float32 scalars."""
        answers = zip(logits, part.branches.items(), strict=True)
        return {name: self.loss(answer, branch, part.divisors[name]) for answer, (name, branch) in answers}

    def compile(self) -> None:
        """From now on, run views, pseudo-labels and losses through torch.compile, each as one graph."""
        views = ("scaled_views", "supervised", "consistency", "masked", "reconstructed")
        for name in (*views, "draw", "divisors", "combine", "loss", "confident", "agreeing"):
            setattr(self, name, torch.compile(getattr(self, name), fullgraph=True, dynamic=False))

    def draw(self, batch: Batch) -> Batch:
        """The batch with the boxes of CutMix, which are otherwise drawn anew wherever they are needed."""
        mixes = self.config.cutmix and not self.config.supervised_only
        # torch 2.11 compiles `_replace` of a NamedTuple to an empty one.
        return Batch(*batch[:6], boxes=self._boxes(batch), truth=batch.truth) if mixes else batch

    def divisors(self, batch: Batch) -> Tensor:
        """The pixels that count in each of DIVISORS: non-ignored ones; int64 [5], float64 with class weights.

        Known before any network runs, so that several batches (of processes, or of accumulation) can add theirs up.
        """
        labeled = self.supervised_loss.divisor(batch.target)
        if self.config.supervised_only:
            return torch.stack([labeled, *[torch.zeros_like(labeled)] * (len(DIVISORS) - 1)])
        valid = _required(batch.valid)
        mixed = masked = hidden = pixels = valid.sum()
        if self.config.cutmix:
            mixed = mix(self._boxes(batch), valid).sum()
        if self.config.ablation.region != "all":
            masked = (valid & ~self._outside(self._mask(batch)[1], valid)).sum()
        if self.config.ablation.reconstruction:
            hidden = (valid & self._hidden(self._mask(batch)[1], valid)).sum()
        return torch.stack([labeled, *(count.to(labeled.dtype) for count in (mixed, masked, hidden, pixels))])

    @torch.no_grad()
    def pseudo_labels(
        self,
        teacher: Callable[[Tensor], Tensor],
        batch: Batch,
        scales: Sequence[float] | None = None,
        phase: Phase = _no_phase,
    ) -> PseudoLabels:
        """The teacher's labels of the weak views, averaged over the scales, by default all of `config.scales`."""
        with phase("loss"):
            views = self.scaled_views(batch, scales)
        logits = [teacher(view) for view in views]
        with phase("loss"):
            return self.labels(logits, batch)

    def scaled_views(self, batch: Batch, scales: Sequence[float] | None = None) -> list[Tensor]:
        """What the teacher sees: the normalised weak views at each scale, float32 [M, 3, h, w]."""
        weak = self.normalize(_required(batch.weak))
        return [self._resize(weak, scale) for scale in scales or self.config.scales]

    def labels(self, logits: Sequence[Tensor], batch: Batch) -> PseudoLabels:
        """Pseudo-labels from the teacher's logits [M, C, h, w] at each scale, as `class_balance` changes them."""
        label, confidence = self.combine(self.class_balance.adjusted(logits, batch.target), batch)
        return PseudoLabels(label, self.class_balance.relative(label, confidence, logits[0].shape[1]))

    def combine(self, logits: Sequence[Tensor], batch: Batch) -> PseudoLabels:
        """Labels and confidences of the mean over the scales."""
        valid = _required(batch.valid)
        label, confidence = multiscale_pseudo_label(
            logits, valid.shape[1:], average=self.config.ablation.average, align_corners=self.align_corners
        )
        return PseudoLabels(torch.where(valid, label, IGNORE_INDEX), confidence)

    def branch(self, name: str, batch: Batch, pseudo: PseudoLabels | None) -> Branch:
        """The branch that `name`, one of BRANCHES, stands for; `pseudo` is for the unlabelled ones."""
        if name == "loss_x":
            return self.supervised(batch)
        if name == "loss_r":
            return self.reconstructed(batch)
        if pseudo is None:
            raise ValueError(f"{name} is scored against pseudo-labels, got none")
        return self.consistency(batch, pseudo) if name == "loss_u" else self.masked(batch, pseudo)

    def supervised(self, batch: Batch) -> Branch:
        """L_x: the labelled images and their masks."""
        return Branch(self.normalize(batch.images), batch.target, None, updates_statistics=True)

    def consistency(self, batch: Batch, pseudo: PseudoLabels) -> Branch:
        """L_u: the strong views, mixed by CutMix together with their pseudo-labels."""
        strong = _required(batch.strong)
        if self.config.cutmix:
            boxes = self._boxes(batch)
            strong = mix(boxes, strong)
            pseudo = PseudoLabels(mix(boxes, pseudo.label), mix(boxes, pseudo.confidence))
        return Branch(self.normalize(strong), *pseudo, updates_statistics=self.config.strong_updates_bn)

    def masked(self, batch: Batch, pseudo: PseudoLabels) -> Branch:
        """L_m: a view with patches hidden must still give the labels, of the hidden pixels too."""
        images, grid = self._mask(batch)
        label = pseudo.label
        if self.config.ablation.region != "all":
            label = label.masked_fill(self._outside(grid, label), IGNORE_INDEX)
        return Branch(images, label, pseudo.confidence, self.config.masked_updates_bn, self._left_out(grid))

    def reconstructed(self, batch: Batch) -> Branch:
        """L_r: the masked view must give the hidden pixels themselves."""
        images, grid = self._mask(batch)
        valid = _required(batch.valid)
        hidden = (valid & self._hidden(grid, valid)).float()
        image = self.normalize(self._view_to_mask(batch))
        return Branch(images, image, hidden, self.config.masked_updates_bn, self._left_out(grid))

    def logits(self, student: nn.Module, branches: Sequence[Branch]) -> Sequence[Tensor]:
        """The student's answers to some branches, from one forward of all their images."""
        images, options = branches[0].images, {}
        if len(branches) > 1:
            images = torch.cat([branch.images for branch in branches])
        elif branches[0].hidden is not None:
            options = {"hidden": branches[0].hidden}
        with running_statistics(student, update=any(branch.updates_statistics for branch in branches)):
            logits: Tensor = student(images, **options)
        if len(branches) == 1:
            return [logits]
        return logits.split([branch.images.shape[0] for branch in branches])

    def loss(self, logits: Tensor, branch: Branch, divisor: Tensor) -> Tensor:
        """The summed cross-entropy of the confident pixels over `divisor`; a float32 scalar.

        With `ablation.reconstruction` the logits are followed by the image: [N, C + 3, h, w], see
        `reconstruction.with_head`.
        """
        if self.config.ablation.reconstruction:
            logits, painted = logits.split([logits.shape[1] - CHANNELS, CHANNELS], 1)
            if branch.target.is_floating_point() and branch.confidence is not None:
                return reconstruction_loss(
                    painted, branch.target, branch.confidence, divisor, align_corners=self.align_corners
                )
        if branch.confidence is None:
            return self.supervised_loss(logits, branch.target, divisor)
        return upsample_cross_entropy(
            logits,
            branch.target,
            confidence=branch.confidence,
            threshold=self.config.threshold,
            normalize=divisor,
            align_corners=self.align_corners,
        )

    def confident(self, pseudo: PseudoLabels) -> Tensor:
        """Number of unlabelled pixels whose pseudo-label is confident enough to count; int64 scalar."""
        return ((pseudo.label != IGNORE_INDEX) & (pseudo.confidence >= self.config.threshold)).sum()

    @torch.no_grad()
    def agreeing(self, logits: Tensor, branch: Branch) -> Tensor:
        """Number of the branch's pixels that the student labels as the teacher does; int64 scalar."""
        if self.config.ablation.reconstruction:
            logits = logits[:, :-CHANNELS]
        label, _ = multiscale_pseudo_label([logits], branch.target.shape[1:], align_corners=self.align_corners)
        return (label == branch.target).sum()  # IGNORE_INDEX is no class

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> what the network takes, float32: patch masking with nothing hidden."""
        return patch_mask(images, max(images.shape[2:]), mask_ratio=0.0, mean=self.mean, std=self.std)[0]

    def _boxes(self, batch: Batch) -> Tensor:
        """Where CutMix takes the neighbour's pixels, bool [M, H, W]."""
        if batch.boxes is not None:
            return batch.boxes
        return cutmix_boxes(_required(batch.seeds), *_required(batch.strong).shape[2:])

    def _view_to_mask(self, batch: Batch) -> Tensor:
        return _required(batch.weak if self.config.ablation.masked_view == "weak" else batch.strong)

    def _mask(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The masked view, normalised, and its patch grid."""
        config = self.config
        return patch_mask(
            self._view_to_mask(batch),
            config.patch_size,
            mask_ratio=config.mask_ratio,
            seeds=_required(batch.seeds),
            strategy=config.masking,
            mean=self.mean,
            std=self.std,
        )

    def _left_out(self, grid: Tensor) -> tuple[Tensor, int] | None:
        """What a network that leaves hidden patches out needs to know of them."""
        patches = grid.shape[1] * grid.shape[2]
        return (grid, patches - hidden_patches(patches, self.config.mask_ratio)) if self.leaves_out_hidden else None

    def _outside(self, grid: Tensor, like: Tensor) -> Tensor:
        """Pixels outside the region of L_m; bool, of the shape of `like` [M, H, W]."""
        hidden = self._hidden(grid, like)
        return hidden if self.config.ablation.region == "visible" else ~hidden

    def _hidden(self, grid: Tensor, like: Tensor) -> Tensor:
        """The patch grid in pixels; bool, of the shape of `like` [M, H, W]."""
        size = self.config.patch_size
        return grid.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, : like.shape[1], : like.shape[2]]

    def _resize(self, images: Tensor, scale: float) -> Tensor:
        multiple = self.size_multiple
        least = -(-self.min_size // multiple)
        height, width = (max(least, round(side * scale / multiple)) * multiple for side in images.shape[2:])
        if (height, width) == tuple(images.shape[2:]):
            return images
        # On a CPU three channels are slow to resize in channels-last memory; the numbers are the same.
        resized = F.interpolate(images.contiguous(), (height, width), mode="bilinear", align_corners=False)
        return resized.contiguous(memory_format=torch.channels_last)


def _required(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("the batch has no unlabelled images, which every loss but the supervised one needs")
    return tensor
