"""One training step: every branch forward and backward, the optimizer, the teacher.

Nothing here waits for the device: whatever a step finds out stays there as a tensor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskmatch.common.batch import Batch
from maskmatch.common.device import shapes_stay
from maskmatch.common.errors import UserError
from maskmatch.config import MethodConfig, TrainConfig
from maskmatch.method import BRANCHES, COMPARABLE, MaskMatch, Part, Teacher
from maskmatch.method.batchnorm import has_batchnorm
from maskmatch.method.branches import summed
from maskmatch.method.folding import Fold, FoldedNetwork
from maskmatch.method.reconstruction import head_for, with_head
from maskmatch.models import Student
from maskmatch.run_files.checkpoint import State
from maskmatch.training.activation_checkpoints import checkpoint_activations
from maskmatch.training.distributed import World
from maskmatch.training.gradients import GradientSum
from maskmatch.training.graph import StepGraphs
from maskmatch.training.loss_scale import LossScale
from maskmatch.training.nonfinite import NonFiniteGuard, in_one_memory
from maskmatch.training.phases import Phases
from maskmatch.training.pseudo_label_watch import PseudoLabelCounter
from maskmatch.training.schedules import (
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    set_learning_rate,
)


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
        graphs: takes the steps, as CUDA graphs; None: they run as any PyTorch program.
        folds: BatchNorms that the teacher's convolutions take over where it labels, from `find_folds`.

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
        graphs: StepGraphs | None = None,
        folds: Sequence[Fold] = (),
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
        self.world, self.counter, self.graphs = world or World(), counter, graphs
        self.device = next(network.parameters()).device
        self.phases = Phases(self.device)
        self.head = head_for(network) if method.config.ablation.reconstruction else None
        trained = with_head(network, self.head) if self.head else network
        self.optimizer = make_optimizer(trained, config, self.world.size)
        self.loss_scale = LossScale(self.optimizer, self.device, enabled=config.precision == "fp16")
        parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
        self.guard = NonFiniteGuard(parameters, self.optimizer, in_one_memory(trained), self.loss_scale)
        self._gradients = GradientSum(parameters)
        self._loss_weights = {name: torch.ones((), device=self.device) for name in BRANCHES}
        self._teacher_weight = torch.ones((), device=self.device)
        self._trained = self._student = trained
        self.folded = FoldedNetwork(teacher.network, folds) if folds else None
        self._teacher = self.folded.network if self.folded else teacher.network
        if config.compile:  # beside the networks themselves, which validation runs at any size
            self._student, self._teacher = _compiled(trained), _compiled(self._teacher)
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
        self.set_numbers(step)
        compared = self.compared(step) if compare else None
        take = partial(self.take, step=step, compared=compared)
        with shapes_stay(self.device):
            if self.graphs is None or self.phases.active:  # whose parts could not be seen
                return take(batches)
            ramp_up, threshold = self.method.ramp_up, self.method.config.threshold
            stage = (*ramp_up.weights(step), *ramp_up.scales(step), threshold)
            return self.graphs(take, batches, stage, compared)

    def take(self, batches: Sequence[Batch], step: int, compared: str | None) -> dict[str, Tensor]:
        """The device's part of a step: the same operators on the same memory in every step that computes the same.

        What changes is in the batches and in what `set_numbers` has set; `step` says no more than which losses count.
        """
        self.guard.remember()
        self.optimizer.zero_grad(set_to_none=True)  # where a capture broke off
        found = defaultdict[str, list[Tensor]](list)
        for part in self._parts(batches, step, joint=self.config.branches == "joint"):
            if part.pseudo and part.first:
                found["coverage"].append(self._coverage(part, batches[part.batch].truth))
            with self._synchronizing(part.last):
                losses = self._losses(part, compared)
                self._backward(losses["loss"])
            for name, loss in losses.items():
                found[name].append(loss.detach())
        values = self.world.sum(torch.stack([summed(parts) for parts in found.values()]))
        with self.phases("optimizer"):
            good = self.guard.step(values.sum())
            self.optimizer.zero_grad(set_to_none=True)
        with self.phases("EMA"):
            self.world.average_statistics(self.guard.statistics)
            self.teacher.follow(self.network, self._teacher_weight)
        if self.method.ramp_up.factor(step):
            self.method.class_balance.update(self.world.sum)
        return dict(zip(found, torch.where(good, values, torch.nan), strict=True))

    def find_fault(self, batches: Sequence[Batch], step: int) -> tuple[str, str] | None:
        """Repeat a step that was not taken, branch by branch, to say why; nothing is trained any more after it.

        It waits for the device. Processes each look at their own images.

        Returns:
            The name of the first branch's loss that is at fault, and what is wrong with it.
        """
        self.set_numbers(step)
        self.guard.remember()
        self._student = self._trained  # without the other processes
        for part in self._parts(batches, step, joint=False):
            self.optimizer.zero_grad(set_to_none=True)
            (name,) = part.branches
            losses = self._losses(part)
            if not losses[name].isfinite():
                return name, f"its loss is {losses[name].item()}"
            self._backward(losses["loss"])
            if self.guard.found_inf(losses[name].detach()):
                return name, "its gradient is not finite"
        return None

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """What a resumed training needs, besides the networks, as `checkpoint.State` has it."""
        return {
            "optimizer": optimizer_state(self.optimizer),
            "scaler": self.loss_scale.state_dict(),
            "head": self.head.state_dict() if self.head else {},
            "class_balance": self.method.class_balance.state_dict(),
        }

    def load_state(self, state: State) -> None:
        """Go on from there."""
        load_optimizer_state(self.optimizer, state.optimizer)
        self.loss_scale.load_state_dict(state.scaler)
        if self.head:
            self.head.load_state_dict(state.head)
        if state.class_balance:
            self.method.class_balance.load_state_dict(state.class_balance)

    def reconfigure(self, config: MethodConfig) -> None:
        """Go on with another threshold, warm-up, ramp or weights of the losses."""
        self.method.reconfigure(config)
        if self.counter:
            self.counter.threshold = config.threshold

    def set_numbers(self, step: int) -> None:
        """The host's part of a step: all that changes from one to the next, set where the device finds it."""
        self._seed(step)
        set_learning_rate(self.optimizer, step, self.config)
        for name, weight in self.method.ramp_up.weights(step).items():
            self._loss_weights[name].fill_(weight)
        self._teacher_weight.fill_(self.teacher.weight(step))
        if not self.network.training:
            self.network.train()

    def _parts(self, batches: Sequence[Batch], step: int, *, joint: bool) -> Iterator[Part]:
        """The method's, of batches without their `truth`, which what is compiled need not see come and go."""
        plain = [batch._replace(truth=None) for batch in batches]
        weights = {name: self._loss_weights[name] for name in self.method.ramp_up.weights(step)}
        if self.folded and len(weights) > 1:  # else nothing is labelled
            with self.phases("teacher"):
                self.folded.refresh()
        return self.method.parts(
            self._label, plain, step, weights=weights, joint=joint, total=self.world.sum, phase=self.phases
        )

    def _label(self, view: Tensor) -> Tensor:
        with self.phases("teacher"), self.autocast(), torch.no_grad():
            logits: Tensor = self._teacher(view)
            return logits

    def _losses(self, part: Part, compared: str | None = None) -> dict[str, Tensor]:
        """The losses of a part by name; `loss`, their weighted sum; of the branch `compared` the `agreement`."""
        with self.phases("student forward"), self.autocast():
            logits = self.method.logits(self._student, list(part.branches.values()))
        with self.phases("loss"):
            losses = self.method.losses(logits, part)
            for answer, (name, branch) in zip(logits, part.branches.items(), strict=True):
                if name == compared:
                    losses["agreement"] = self.method.agreeing(answer, branch) / part.divisors[name].clamp(min=1)
            losses["loss"] = part.total(losses)
        return losses

    def _backward(self, loss: Tensor) -> None:
        with self.phases("backward"):
            # The processes' gradients are averaged, but the divisors make them parts of a sum.
            scaled = self.loss_scale(loss if self.world.size == 1 else loss * self.world.size)
            if self.world.size == 1:
                self._gradients.backward(scaled)
            else:  # DistributedDataParallel adds up in its own memory
                scaled.backward()

    def compared(self, step: int) -> str | None:
        """The first branch at this step in which the student is to give the teacher's labels."""
        return next((name for name in self.method.ramp_up.weights(step) if name in COMPARABLE), None)

    def _coverage(self, part: Part, truth: Tensor | None) -> Tensor:
        """Share in the whole step's unlabelled pixels of a batch's confident ones, which are counted; a scalar."""
        pseudo = part.pseudo
        if pseudo is None:
            raise ValueError("there are no pseudo-labels at this step")
        counter = self.counter
        confident = counter.count(part.target, pseudo, truth) if counter else self.method.confident(pseudo)
        return confident / part.divisors["coverage"].clamp(min=1)

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

    def autocast(self) -> torch.autocast:
        """The networks' forwards run in it."""
        # Every weight is used once a forward, and a cached cast would outlive the backward of its branch.
        precision = self.config.precision
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=precision != "fp32", cache_enabled=False)


def _compiled(network: nn.Module) -> nn.Module:
    return torch.compile(network, fullgraph=True, dynamic=False)  # type: ignore[return-value]
