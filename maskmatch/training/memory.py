"""`--dry_run`: what a training step will need, before it starts and without the device it is for.

The very step of the training loop is run on fake tensors, which have shapes and no content, under torch's own
memory tracker. On a GPU what CUDA itself takes comes on top: its context, the workspaces of cuDNN, fragmentation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from maskmatch import ops
from maskmatch.common.batch import Batch
from maskmatch.common.errors import UserError
from maskmatch.config import Config
from maskmatch.data import load_dataset
from maskmatch.data.decoding import classes
from maskmatch.data.listing.builtin import CLASS_NAMES
from maskmatch.method import Teacher
from maskmatch.method.batchnorm import has_batchnorm
from maskmatch.models import build_student, check_crop, check_patches
from maskmatch.training.step import TrainStep, make_method

MIB = 2**20
WIDTH = 46  # of the first column
KEPT = "of it the pool of the CUDA graphs, kept"


@dataclass(frozen=True)
class Memory:
    """Bytes at the moment of a step when most are in use."""

    network: int  # the student's parameters and buffers
    gradients: int
    optimizer: int  # its state
    teacher: int
    batch: int
    activations: int  # kept for the backward pass, and whatever is computed at that moment
    baseline: int = 0  # its networks and optimizer state; it trains when nothing else does

    @property
    def peak(self) -> int:
        return sum(vars(self).values())

    @property
    def pool(self) -> int:
        """What a step makes and frees again: a CUDA graph of it keeps that from its first replay to its last."""
        return self.gradients + self.activations


# FakeTensorMode knows nothing of fused optimizers whose learning rate is a tensor, and would run them on real ones.
_RULES = torch.library.Library("aten", "IMPL", "Meta")
for _optimizer in ("_fused_adamw_.tensor_lr", "_fused_sgd_.tensor_lr"):
    _RULES.impl(_optimizer, lambda *tensors, **options: None)


class _StepTracker(MemTracker):
    """MemTracker without its statistics by module, which allow a network one forward a step."""

    def _pre_fw_hook(self, *arguments: object) -> None: ...
    def _post_fw_hook(self, *arguments: object) -> None: ...
    def _pre_bw_hook(self, *arguments: object) -> None: ...
    def _post_bw_hook(self, *arguments: object) -> None: ...


KNOWN_CLASSES = {
    "builtin": len(CLASS_NAMES),
    "voc": len(classes.VOC),
    "cityscapes": len(classes.CITYSCAPES),
    "coco": len(classes.COCO),
    "ade20k": len(classes.ADE20K),
}
"""Number of classes of the data sets that need not be there to know it."""


def measure_memory(config: Config, num_classes: int) -> Memory:
    """Memory of a step with every loss live, on whatever device.

    Raises:
        UserError: the network cannot be built, or does not take the crop or the options.
    """
    student = build_student(replace(config.model, encoder_weights="none"), num_classes)
    height, width = check_crop(student, config.data.crop)
    if not config.method.supervised_only and (config.method.lcr or config.method.ablation.reconstruction):
        check_patches(student, (height, width), config.method.patch_size)
    network = student.network.to(memory_format=torch.channels_last)
    teacher = Teacher(network, momentum=0.0)
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        network, teacher.network = copy.deepcopy(network), copy.deepcopy(teacher.network)
    teacher.network.requires_grad_(True)  # the tracker hangs its hooks on every parameter; nothing is trained
    with mode:
        method = make_method(replace(config.method, warmup_steps=0, ramp_steps=0), student, num_classes)
        step = TrainStep(network, teacher, method, replace(config.train, compile=False, steps=3))
        size = config.train.batch_size
        batches = [
            _batch(size, height, width, supervised_only=config.method.supervised_only)
            for _ in range(config.train.accumulate)
        ]
        step(batches, 1)  # makes the optimizer's state
        found = _track(step, network, teacher.network, batches)
    if config.train.baseline_every and not config.method.supervised_only:
        found = replace(found, baseline=found.network + found.optimizer + found.teacher)
    return _on_a_gpu(found, config, network)


def _on_a_gpu(memory: Memory, config: Config, network: nn.Module) -> Memory:
    """With what a step on a GPU keeps besides: the teacher's folded weights, and the batch that a graph reads."""
    if not _plans_for_a_gpu(config):
        return memory
    folded = 0
    if has_batchnorm(network) and not config.method.supervised_only:  # at most: of convolutions without one, too
        folded = _bytes(module.weight for module in network.modules() if isinstance(module, nn.Conv2d))
    batches = 1 if config.train.graph is False else 2
    return replace(memory, teacher=memory.teacher + folded, batch=batches * memory.batch)


def _plans_for_a_gpu(config: Config) -> bool:
    device = config.train.device
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def _track(step: TrainStep, network: nn.Module, teacher: nn.Module, batches: list[Batch]) -> Memory:
    tracker = _StepTracker()
    tensors = [tensor for batch in batches for tensor in batch if tensor is not None]
    tracker.track_external(network, teacher, step.optimizer, *tensors)
    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: tracker.track_external(p.grad))
    with tracker:
        step(batches, 2)
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    found = {str(getattr(part, "value", part)): count for part, count in peak.items()}
    sizes = {"network": _bytes(network.state_dict().values()), "teacher": _bytes(teacher.state_dict().values())}
    return Memory(
        network=found["Parameter"] + found["Buffer"] - sizes["teacher"],
        gradients=found["Other"] - _bytes(tensors),
        optimizer=found["Optstate"],
        teacher=sizes["teacher"],
        batch=_bytes(tensors),
        activations=found["Activation"] + found["Temp"] + found["Gradient"],
    )


def memory_report(config: Config) -> str:
    """What the configured step needs, by part, and what it would need with one switch set otherwise.

    Raises:
        UserError: as `measure_memory`.
    """
    with nullcontext() if config.fused else ops.use_backend("reference"):
        return _report(config)


def _report(config: Config) -> str:
    num_classes = config.data.num_classes or KNOWN_CLASSES.get(config.data.layout)
    if num_classes is None:
        num_classes = load_dataset(config.data, supervised_only=True, incomplete=True).num_classes
    train, memory = config.train, measure_memory(config, num_classes)
    height, width = config.data.crop
    images = f"{train.batch_size} labelled" + ("" if config.method.supervised_only else " and as many unlabelled")
    lines = [
        f"Peak memory of a training step: {config.model.arch} with {config.model.encoder}, {images} images of "
        f"{height} x {width}, {train.precision}, branches {train.branches}, {train.optimizer}",
        "",
    ]
    parts = PARTS | ({"baseline": "supervised-only baseline"} if memory.baseline else {})
    lines += [f"  {name:<{WIDTH}}{_megabytes(getattr(memory, field))}" for field, name in parts.items()]
    lines += [f"  {'peak':<{WIDTH}}{_megabytes(memory.peak)}"]
    if _plans_for_a_gpu(config) and train.graph is not False:
        lines.append(f"  {KEPT:<{WIDTH}}{_megabytes(memory.pool)}")
    lines += ["", "With one switch set otherwise:"]
    for switches, other in _variants(config):
        try:
            peak = measure_memory(other, num_classes).peak
        except UserError:  # branches joint, with BatchNorm
            lines.append(f"  {switches:<{WIDTH}}{'not for this network':>24}")
        else:
            lines.append(f"  {switches:<{WIDTH}}{_megabytes(peak)}  {100 * (peak / memory.peak - 1):+4.0f} %")
    lines += ["", "On a GPU, CUDA's context, cuDNN's workspaces and fragmentation come on top."]
    return "\n".join(lines)


PARTS = {
    "network": "parameters and buffers",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "teacher": "teacher",
    "batch": "batch",
    "activations": "activations and temporaries",
}


def _variants(config: Config) -> Iterable[tuple[str, Config]]:
    """Configurations that differ from this one in one switch, each with the switch as one would type it."""
    train = config.train
    options: list[dict[str, Any]] = [
        {"checkpoint_activations": not train.checkpoint_activations},
        {"precision": "bf16" if train.precision == "fp32" else "fp32"},
        {"branches": "joint" if train.branches == "sequential" else "sequential"},
    ]
    if train.batch_size % 4 == 0:
        options.append({"batch_size": train.batch_size // 2, "accumulate": 2 * train.accumulate})
    for changes in options:
        typed = " ".join(f"--train.{name} {str(value).lower()}" for name, value in changes.items())
        yield typed, replace(config, train=replace(train, **changes))


def _batch(size: int, height: int, width: int, *, supervised_only: bool) -> Batch:
    def images() -> Tensor:
        return torch.empty(size, height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)

    target = torch.empty(size, height, width, dtype=torch.uint8)
    if supervised_only:
        return Batch(images(), target, None, None, None, None)
    valid, seeds = torch.empty(size, height, width, dtype=torch.bool), torch.empty(size, dtype=torch.int64)
    return Batch(images(), target, images(), images(), valid, seeds)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _megabytes(count: int) -> str:
    return f"{count / MIB:>9,.0f} MiB"
