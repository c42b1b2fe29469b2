"""`UpsampleCrossEntropyLoss` in a LightningModule: a tiny network, a few steps on random images.

    pip install lightning
    python examples/loss_in_lightning.py [STEPS]

docs/own-trainer.md shows what stood there before.
"""

import sys
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from maskmatch.nn import UpsampleCrossEntropyLoss


class Segmenter(LightningModule):
    """A network whose logits have a quarter of the images' resolution; rarer classes weigh more."""

    def __init__(self, class_weight: Tensor) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 32, 4, stride=4), nn.ReLU(), nn.Conv2d(32, len(class_weight), 1))
        self.loss = UpsampleCrossEntropyLoss(class_weight)

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        images, target = batch
        logits = self.network(images)
        loss = self.loss(logits, target)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main(steps: int = 3) -> nn.Module:
    torch.manual_seed(0)
    classes = 21
    masks = torch.randint(classes, (2 * steps, 64, 64))
    masks[:, :8] = 255  # not labelled
    pairs: Any = [(torch.randn(3, 64, 64), mask) for mask in masks]
    loader: DataLoader[Any] = DataLoader(pairs, batch_size=2)
    trainer = Trainer(max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False)
    module = Segmenter(class_weight=torch.linspace(0.5, 1.5, classes))
    trainer.fit(module, loader)
    return module.network


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
