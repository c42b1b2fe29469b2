"""`upsample_cross_entropy` under Hugging Face's Trainer: a small Segformer, a few steps on random images.

    pip install transformers accelerate
    python examples/loss_in_transformers.py [STEPS]

docs/own-trainer.md shows what stood there before.
"""

import sys
import tempfile

import torch
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation, Trainer, TrainingArguments

from maskmatch.ops import upsample_cross_entropy


def fused_loss(outputs: dict[str, Tensor], labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    return upsample_cross_entropy(outputs["logits"], labels)


def examples(classes: int, count: int = 8) -> list[dict[str, Tensor]]:
    """Images [3, 64, 64] and masks [64, 64] in which a strip is not labelled."""
    masks = torch.randint(classes, (count, 64, 64))
    masks[:, :8] = 255
    return [{"pixel_values": torch.randn(3, 64, 64), "labels": mask} for mask in masks]


def main(steps: int = 3) -> nn.Module:
    torch.manual_seed(0)
    config = SegformerConfig(
        num_labels=21, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], decoder_hidden_size=32,
        num_attention_heads=[1, 2, 2, 2], semantic_loss_ignore_index=255,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=2, learning_rate=0.1, optim="sgd", logging_steps=1,
            save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        trainer = Trainer(
            model=SegformerForSemanticSegmentation(config),
            args=options,
            train_dataset=examples(config.num_labels),
            compute_loss_func=fused_loss,
        )
        trainer.train()
    return trainer.model


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
