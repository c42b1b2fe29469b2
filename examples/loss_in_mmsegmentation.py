"""`upsample_cross_entropy` in mmsegmentation's registry: an FCN head alone, a few steps on random features.

    python examples/loss_in_mmsegmentation.py [STEPS]

mmsegmentation's heads resize their logits before they call a loss, so the head changes with the loss.
docs/own-trainer.md shows what stood there before.
"""

import sys
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from maskmatch.ops import multiscale_pseudo_label, upsample_cross_entropy


@MODELS.register_module(force=True)
class UpsampleCrossEntropyLoss(nn.Module):
    """mmseg's CrossEntropyLoss of softmax, whose divisor counts ignored pixels unless `avg_non_ignore`."""

    def __init__(self, loss_weight: float = 1.0, avg_non_ignore: bool = False, loss_name: str = "loss_ce") -> None:
        super().__init__()
        self.loss_weight, self.avg_non_ignore, self.loss_name = loss_weight, avg_non_ignore, loss_name

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        divisor = "all" if self.avg_non_ignore else target.numel()
        return self.loss_weight * upsample_cross_entropy(logits, target, normalize=divisor, **options)


class KeepLogitsSmall:
    """Before any head without a sampler, among its base classes: its losses take logits as the head makes them."""

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list[Any]) -> dict[str, Tensor]:
        head: Any = self
        target = head._stack_batch_gt(batch_data_samples).squeeze(1)
        options = {"ignore_index": head.ignore_index, "align_corners": head.align_corners}
        losses: dict[str, Tensor] = {}
        several: Any = head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]
        for one in several:
            losses[one.loss_name] = losses.get(one.loss_name, 0) + one(seg_logits, target, **options)
        label, _ = multiscale_pseudo_label([seg_logits], target.shape[-2:], align_corners=head.align_corners)
        valid = target != head.ignore_index
        losses["acc_seg"] = 100 * ((label == target) & valid).sum() / valid.sum().clamp(min=1)
        return losses


@MODELS.register_module(force=True)
class SmallLogitsFCNHead(KeepLogitsSmall, FCNHead):  # type: ignore[misc, unused-ignore]
    pass


def main(steps: int = 3) -> nn.Module:
    torch.manual_seed(0)
    classes = 21
    head = MODELS.build(
        {
            "type": "SmallLogitsFCNHead",
            "in_channels": 8, "channels": 16, "num_convs": 1, "num_classes": classes, "norm_cfg": {"type": "BN"},
            "loss_decode": {"type": "UpsampleCrossEntropyLoss"},
        }
    )  # fmt: skip
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for step in range(steps):
        masks = torch.randint(classes, (2, 1, 64, 64))
        masks[:, :, :8] = 255  # not labelled
        samples = [SegDataSample(gt_sem_seg=PixelData(data=mask)) for mask in masks]
        losses = head.loss([torch.randn(2, 8, 16, 16)], samples, train_cfg={})
        optimizer.zero_grad()
        losses["loss_ce"].backward()
        optimizer.step()
        print(f"step {step}: loss {losses['loss_ce'].item():.4f}, accuracy {losses['acc_seg'].item():.2f} %")
    return head


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
