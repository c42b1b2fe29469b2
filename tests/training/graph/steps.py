"""A small step with every part that can be switched on, and batches that always come in the same memory."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from maskmatch.common.batch import Batch
from maskmatch.config import AblationConfig, MethodConfig, TrainConfig
from maskmatch.method import MaskMatch, Teacher
from maskmatch.method.folding import find_folds
from maskmatch.training.graph import StepGraphs
from maskmatch.training.pseudo_label_watch import PseudoLabelCounter
from maskmatch.training.step import TrainStep

CLASSES = 4
WARMUP, RAMP = 4, 6  # steps
STAGES = {"labels alone": range(4), "ramp": range(4, 9), "full": range(9, 18)}
"""The steps of each, counted from 0; every fifth is logged."""
RECORDED = [0, 1, 2, 4, 5, 6, 9, 10, 11, 14]
"""Steps that Python goes through: three of each stage, and 14. 4 and 9 are logged, too, but the first of theirs."""

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "sgd": {"optimizer": "sgd"},
    "fp16": {"precision": "fp16"},
    "bf16": {"precision": "bf16"},
    "no class thresholds": {"class_thresholds": False},
    "logit adjustment": {"logit_adjustment": 0.5},
    "OHEM, class weights": {"ohem": 0.25, "class_weights": [1.0, 2.0, 1.0, 1.0]},
    "reconstruction": {"ablation": AblationConfig(reconstruction=True), "lcr": False},
    "visible region, blocks": {"ablation": AblationConfig(region="visible"), "masking": "block"},
    "strong view, grid, logits": {"ablation": AblationConfig(masked_view="strong", average="logit"), "masking": "grid"},
    "no CutMix": {"cutmix": False},
    "labels alone": {"supervised_only": True},
    "consistency alone": {"lcr": False},
    "accumulation": {"accumulate": 2},
    "checkpointed activations": {"checkpoint_activations": True},
    "joint branches": {"branches": "joint"},
    "folded teacher": {"folded": True},
}


class Block(nn.Module):
    """Between others of its like: what `checkpoint_activations` takes."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), norm, nn.ReLU(), nn.Dropout(0.2))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class Network(nn.Module):
    """Logits at a quarter of the size; dropout, and BatchNorm unless the branches are joint."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        norms = [nn.GroupNorm(2, 8) if norm == "group" else nn.BatchNorm2d(8) for _ in range(2)]
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), *(Block(norm) for norm in norms))
        self.segmentation_head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.segmentation_head(self.encoder(images))


def make_step(device: str = "cpu", **options: Any) -> TrainStep:
    """A step with options of `method` and `train` that are set apart by their names."""
    torch.manual_seed(0)
    network = Network("group" if options.get("branches") == "joint" else "batch").to(device)
    teacher = Teacher(copy.deepcopy(network), 0.97)
    folds = find_folds(network, 32) if options.pop("folded", False) else ()
    train = {name: options.pop(name) for name in list(options) if name in TrainConfig.__dataclass_fields__}
    method = {"warmup_steps": WARMUP, "ramp_steps": RAMP, "threshold": 0.3, "scales": [1.0, 1.5], **options}
    return TrainStep(
        network,
        teacher,
        MaskMatch(MethodConfig(**method), size_multiple=4),
        TrainConfig(steps=20, **train),
        counter=PseudoLabelCounter(CLASSES, 0.3, device),
        folds=folds,
    )


class Batches:
    """The micro-batches of a step, drawn anew in the same memory; `truth` comes with those of logged steps."""

    def __init__(self, count: int, *, truth: bool, seed: int = 0, device: str = "cpu") -> None:
        self._generator = torch.Generator().manual_seed(seed)
        with torch.device(device):
            self.batches = [_empty(truth) for _ in range(count)]
        self.draw()

    def draw(self) -> list[Batch]:
        for batch in self.batches:
            for tensor in batch:
                if tensor is not None:
                    high = {torch.bool: 2, torch.int64: 2**40}.get(tensor.dtype, CLASSES)
                    tensor.copy_(torch.randint(high, tensor.shape, generator=self._generator))
            for images in (batch.images, batch.weak, batch.strong):
                images.copy_(torch.randint(256, images.shape, generator=self._generator))
        return self.batches


Left = tuple[list[dict[str, Tensor]], list[Tensor]]


def trained(*, graphs: bool, device: str = "cpu", **options: Any) -> Left:
    """Losses of each step of all stages, and all that the steps leave."""
    step = make_step(device, **options)
    step.graphs = StepGraphs(step.config) if graphs else None
    losses = []
    for number in range(STAGES["full"][-1] + 1):
        logged = number % 5 == 4
        batches = Batches(step.config.accumulate, truth=logged, seed=number, device=device).batches
        losses.append(step(batches, number, compare=logged))
    left = [tensor for network in (step.network, step.teacher.network) for tensor in network.state_dict().values()]
    left += [tensor for state in step.optimizer.state.values() for tensor in state.values()]
    balance = step.method.class_balance
    return losses, [*left, balance.labeled, balance.confidence, step.guard.skipped, step.guard.in_a_row]


def assert_equal(one: Left, other: Left) -> None:
    """Bit for bit."""
    (losses, left), (other_losses, other_left) = one, other
    assert [list(found) for found in losses] == [list(found) for found in other_losses]
    for found, expected in zip(losses, other_losses, strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert all(torch.equal(*pair) for pair in zip(left, other_left, strict=True))


def _empty(truth: bool) -> Batch:
    def pixels(dtype: torch.dtype = torch.uint8) -> Tensor:
        return torch.zeros(4, 32, 40, dtype=dtype)

    def images() -> Tensor:
        return torch.zeros(4, 32, 40, 3, dtype=torch.uint8).permute(0, 3, 1, 2)

    seeds = torch.zeros(4, dtype=torch.int64)
    return Batch(images(), pixels(), images(), images(), pixels(torch.bool), seeds, truth=pixels() if truth else None)
