"""One training step: every branch forward and backward, the optimizer, the teacher.

Nothing here waits for the device: whatever a step finds out stays there as a tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskmatch.common.batch import Batch
from maskmatch.common.errors import UserError
from maskmatch.config import MethodConfig, TrainConfig
from maskmatch.method import COMPARABLE, DIVISORS, Branch, MaskMatch, PseudoLabels, Teacher
from maskmatch.method.batchnorm import has_batchnorm
from maskmatch.method.reconstruction import head_for, with_head
from maskmatch.models import Student
from maskmatch.training.activation_checkpoints import checkpoint_activations
from maskmatch.training.distributed import World
from maskmatch.training.nonfinite import NonFiniteGuard
from maskmatch.training.phases import Phases
from maskmatch.training.pseudo_label_watch import PseudoLabelCounter
from maskmatch.training.schedules import make_optimizer, set_learning_rate


def make_method(config: MethodConfig, student: Student, num_classes: int) -> MaskMatch:
    """The method for a student; UserError for options of another number of classes."""
    if config.class_weights is not None and len(config.class_weights) != num_classes:
        raise UserError(
            f"method.class_weights must be one number a class, {num_classes} in all, got {len(config.class_weights)}"
        )
    return MaskMatch(
        config,
        mean=student.mean,
        std=student.std,
        size_multiple=student.size_multiple,
        min_size=student.min_size,
        align_corners=student.align_corners,
        leaves_out_hidden=student.token_size is not None,
    )


class TrainStep:
    """Trains a student and its teacher by one step a call.

    Args:
        network: the student, on its device.
        teacher: follows it.
        method: gives the branches and their losses.
        config: precision, compilation, branches, optimizer and schedule; resolved.
        world: the processes that take this step together.
        counter: adds up what the pseudo-labels are, if there is one.

    Raises:
        UserError: the options do not go together with the network.
    """

    def __init__(
        self,
        network: nn.Module,
        teacher: Teacher,
        method: MaskMatch,
        config: TrainConfig,
        world: World | None = None,
        counter: PseudoLabelCounter | None = None,
    ) -> None:
        if config.branches == "joint" and has_batchnorm(network):
            raise UserError(
                "train.branches joint would mix the branches' statistics in this network's BatchNorm: "
                "take sequential, or a network without BatchNorm"
            )
        if config.checkpoint_activations:
            if config.compile:
                raise UserError(
                    "train.checkpoint_activations and train.compile exclude each other: torch.compile chooses by "
                    "itself what it keeps"
                )
            checkpoint_activations(network)
        self.network, self.teacher, self.method, self.config = network, teacher, method, config
        self.world, self.counter = world or World(), counter
        self.device = next(network.parameters()).device
        self.phases = Phases(self.device)
        self.head = head_for(network) if method.config.ablation.reconstruction else None
        trained = with_head(network, self.head) if self.head else network
        self.optimizer = make_optimizer(trained, config, self.world.size)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.guard = NonFiniteGuard(trained, self.optimizer)
        self._trained = self._student = trained
        self._teacher = teacher.network
        if config.compile:  # beside the networks themselves, which validation runs at any size
            self._student, self._teacher = _compiled(trained), _compiled(teacher.network)
            method.compile()
        image = torch.zeros(1, 3, method.min_size, method.min_size, device=self.device)
        self._student = self.world.replicate(self._student, trained, image)

    def __call__(self, batches: Sequence[Batch], step: int, *, compare: bool = False) -> dict[str, Tensor]:
        """Train on the micro-batches of step `step`, counted from 0.

        Args:
            batches: the micro-batches; their `truth` is for `counter` alone.
            step: counted from 0.
            compare: see how far the student, under the first unlabelled branch, gives the labels of the teacher.

        Returns:
            Scalars on the device, of the whole batch of all processes: `loss`, its parts by name, and once there are
            pseudo-labels `coverage`, the share of the unlabelled pixels whose pseudo-label counts, and with `compare`
            `agreement`, the share of the strong views' pixels (of the masked ones' without L_u) to which student and
            teacher give the same label. All nan where the loss or a gradient was not finite, and the step therefore
            not taken.
        """
        self._seed(step)
        set_learning_rate(self.optimizer, step, self.config)
        if not self.network.training:
            self.network.train()
        self.guard.remember()
        weights, scales = self.method.weights(step), self.method.scales(step)
        with self.phases("loss"):
            truths = [batch.truth for batch in batches]  # which what is compiled need not see come and go
            batches = [self.method.draw(batch._replace(truth=None)) for batch in batches]
            pixels = self.world.sum(torch.stack([self.method.divisors(batch) for batch in batches]).sum(0))
            divisors = dict(zip(DIVISORS, pixels, strict=True))
        # One branch after the other, each with its own backward, so that one graph at a time is kept.
        compared = next((name for name in weights if name in COMPARABLE), None)
        groups = [list(weights)] if self.config.branches == "joint" else [[name] for name in weights]
        found: list[dict[str, Tensor]] = []
        for batch, truth in zip(batches, truths, strict=True):
            pseudo = None
            if len(weights) > 1:
                pseudo = self._pseudo_labels(batch, scales)
                counter = self.counter
                confident = counter.count(batch.target, pseudo, truth) if counter else self.method.confident(pseudo)
                found.append({"coverage": confident / divisors["coverage"].clamp(min=1)})
            with self.phases("loss"):  # all of the views at once: after a network has run, each takes twice as long
                branches = {name: self.method.branch(name, batch, pseudo) for name in weights}
            for names in groups:
                last = batch is batches[-1] and names is groups[-1]
                with self._synchronizing(last):
                    running = {name: branches.pop(name) for name in names}
                    losses = self._losses(running, divisors, compared if compare else None)
                    losses["loss"] = _sum([_times(losses[name], weights[name]) for name in names])
                    with self.phases("backward"):
                        # The processes' gradients are averaged, but the divisors make them parts of a sum.
                        self.scaler.scale(_times(losses["loss"], self.world.size)).backward()
                found.append({name: loss.detach() for name, loss in losses.items()})
        names = list(dict.fromkeys(name for part in found for name in part))
        values = self.world.sum(torch.stack([_sum([part[name] for part in found if name in part]) for name in names]))
        with self.phases("optimizer"):
            good = self.guard.step(values.sum(), self.scaler)
            self.optimizer.zero_grad(set_to_none=True)
        with self.phases("EMA"):
            self.world.average_statistics(self.guard.statistics)
            self.teacher.update(self.network, step)
        if len(weights) > 1:
            self.method.class_balance.update(self.world.sum)
        return dict(zip(names, torch.where(good, values, torch.nan), strict=True))

    def find_fault(self, batches: Sequence[Batch], step: int) -> tuple[str, str] | None:
        """Repeat a step that was not taken, branch by branch; it waits for the device and leaves no gradients.

        Returns:
            The name of the first branch's loss that is at fault, and what is wrong with it.
        """
        self._seed(step)
        self.network.train()
        self._student = self._trained  # each process for itself
        weights = self.method.weights(step)
        pixels = self.world.sum(torch.stack([self.method.divisors(batch) for batch in batches]).sum(0))
        divisors = dict(zip(DIVISORS, pixels, strict=True))
        for batch in batches:
            pseudo = self._pseudo_labels(batch, self.method.scales(step)) if len(weights) > 1 else None
            for name, weight in weights.items():
                self.optimizer.zero_grad(set_to_none=True)
                branches = {name: self.method.branch(name, batch, pseudo)}
                loss = self._losses(branches, divisors)[name]
                if not loss.isfinite():
                    return name, f"its loss is {loss.item()}"
                self.scaler.scale(weight * loss).backward()
                if self.guard.found_inf(loss.detach()):
                    return name, "its gradient is not finite"
        self.optimizer.zero_grad(set_to_none=True)
        return None

    def _seed(self, step: int) -> None:
        """Dropout depends on the step and the process, not on what ran before."""
        seed = (self.config.seed << 32) + step * self.world.size + self.world.rank
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which asks every kind of device each time
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _synchronizing(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged in the last backward of a step only."""
        if last or not isinstance(self._student, DistributedDataParallel):
            return nullcontext()
        return self._student.no_sync()

    @torch.no_grad()
    def _pseudo_labels(self, batch: Batch, scales: Sequence[float]) -> PseudoLabels:
        with self.phases("loss"):
            views = self.method.scaled_views(batch, scales)
        with self.phases("teacher"), self.autocast():
            logits = [self._teacher(view) for view in views]
        with self.phases("loss"):
            return self.method.labels(logits, batch)

    def _losses(
        self, branches: dict[str, Branch], divisors: dict[str, Tensor], compared: str | None = None
    ) -> dict[str, Tensor]:
        """The losses of some branches, from one forward; and of the branch `compared` the agreement."""
        with self.phases("student forward"), self.autocast():
            logits = self.method.logits(self._student, list(branches.values()))
        losses = {}
        with self.phases("loss"):
            for part, (name, branch) in zip(logits, branches.items(), strict=True):
                losses[name] = self.method.loss(part, branch, divisors[name])
                if name == compared:
                    losses["agreement"] = self.method.agreeing(part, branch) / divisors[name].clamp(min=1)
        return losses

    def autocast(self) -> torch.autocast:
        """The networks' forwards run in it."""
        # Every weight is used once a forward, and a cached cast would outlive the backward of its branch.
        precision = self.config.precision
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=precision != "fp32", cache_enabled=False)


def _sum(scalars: list[Tensor]) -> Tensor:
    return scalars[0] if len(scalars) == 1 else torch.stack(scalars).sum()


def _times(scalar: Tensor, factor: float) -> Tensor:
    return scalar if factor == 1 else scalar * factor


def _compiled(network: nn.Module) -> nn.Module:
    return torch.compile(network, fullgraph=True, dynamic=False)  # type: ignore[return-value]
