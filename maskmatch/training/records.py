"""From the numbers of the steps, which stay on the device, to the records of metrics.jsonl."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskmatch.common.json_values import finite
from maskmatch.training.pseudo_label_watch import Counts, measures
from maskmatch.training.readback import Readback
from maskmatch.training.schedules import learning_rates
from maskmatch.training.step import TrainStep


@dataclass
class Record:
    """What a line of metrics.jsonl says, and what else was found out on the way."""

    values: dict[str, Any]
    steps: int  # that it sums up
    counts: Counts | None  # of the pseudo-labels by class
    skipped_in_a_row: int


class Recorder:
    """Collects what each step measured, sums it up now and then, and gives it back once the host has it.

    Args:
        train_step: whose losses are collected; it counts skipped steps and pseudo-labels itself.
    """

    def __init__(self, train_step: TrainStep) -> None:
        self.train_step = train_step
        self.pending: list[dict[str, Tensor]] = []  # of the steps since the last record, on the device
        self._unread: deque[tuple[_Unread, Readback]] = deque()

    def start(self, step: int, validated: dict[str, Any]) -> None:
        """Begin the record of `step`: send the means of the losses of the steps that were taken to the host."""
        names = sorted({name for losses in self.pending for name in losses})
        means = [torch.stack([losses[name] for losses in self.pending if name in losses]).nanmean() for name in names]
        guard, counter = self.train_step.guard, self.train_step.counter
        parts = [*means, guard.skipped, guard.in_a_row]
        if counter:
            parts += self.train_step.world.sum(counter.take()).flatten()
        rates = learning_rates(self.train_step.optimizer, step - 1, self.train_step.config)
        head = {"step": step, "lr": rates[0], "lr_head": rates[-1]}
        sent = Readback(torch.stack([part.double() for part in parts]))
        self._unread.append((_Unread(head, names, validated, len(self.pending)), sent))
        self.pending.clear()

    def finished(self, *, wait: bool) -> Iterator[Record]:
        """The records that have arrived, all of them with `wait`."""
        # Several processes must hear of a fault at the same step: they read a record when the next one is made.
        alone = self.train_step.world.size == 1
        while self._unread and (wait or (self._unread[0][1].arrived() if alone else len(self._unread) > 1)):
            unread, sent = self._unread.popleft()
            yield self._record(unread, sent.read())

    def _record(self, unread: _Unread, numbers: list[float]) -> Record:
        names = [*unread.names, "skipped_steps", "skipped_in_a_row"]
        values = {name: finite(number) for name, number in zip(names, numbers, strict=False)}
        values["skipped_steps"] = int(values["skipped_steps"] or 0)
        in_a_row = int(values.pop("skipped_in_a_row") or 0)
        counts = None
        if counter := self.train_step.counter:
            by_class = [int(number) for number in numbers[len(names) :]]
            rows = [by_class[i : i + counter.num_classes] for i in range(0, len(by_class), counter.num_classes)]
            counts = Counts(*rows)
            values |= measures(counts)
        return Record(unread.head | values | unread.validated, unread.steps, counts, in_a_row)

    def state_dict(self) -> dict[str, Any]:
        """What no record has yet; the same in every process. Call it in all of them."""
        counter = self.train_step.counter
        counts = self.train_step.world.sum(counter.counts) if counter else None
        return {"pending": self.pending, "counts": counts, "guard": self.train_step.guard.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.train_step.device
        self.pending = [{name: loss.to(device) for name, loss in losses.items()} for losses in state["pending"]]
        self.train_step.guard.load_state_dict(state["guard"])
        if self.train_step.counter and self.train_step.world.leads:  # one process has them, for all
            self.train_step.counter.counts.copy_(state["counts"])


@dataclass
class _Unread:
    """A record whose losses are still on their way to the host."""

    head: dict[str, Any]
    names: list[str]  # of the losses
    validated: dict[str, Any]
    steps: int
