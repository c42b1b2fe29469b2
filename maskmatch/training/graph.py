"""A step as a CUDA graph: recorded once and then replayed, so that the GPU need not wait for Python.

A step is thousands of kernels, and Python takes longer to start them than the GPU to run them. So of the steps that
compute the same, on other numbers,

    the first       runs as any PyTorch program: what is made once is made, such as the optimizer's state
    the second      is recorded: Python goes through it, and the GPU only notes what it is told
    it and others   are replayed: the batch is copied to where the recorded step reads it, the GPU repeats the step

What else changes from step to step `TrainStep.set_numbers` writes to where the recorded step reads that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskmatch.common.batch import Batch
from maskmatch.common.errors import UserError
from maskmatch.config import TrainConfig
from maskmatch.training.distributed import World

AHEAD = 4  # steps that the host may be ahead of the device, each of which keeps its batch's memory

Step = Callable[[Sequence[Batch]], dict[str, Tensor]]
"""From the micro-batches to scalars by name, on the device; whatever else it changes stays in its memory."""


class CaptureError(Exception):
    """A step cannot be recorded; its message says why. Nothing was computed."""


class Record(NamedTuple):
    """A recorded step."""

    graph: torch.cuda.CUDAGraph
    results: dict[str, Tensor]  # where a replay leaves them


class StepGraphs:
    """Takes steps, by replaying the record of one that computed the same."""

    def __init__(self) -> None:
        self._stage: Hashable = None
        self._records: dict[Hashable, Record] = {}  # of this stage
        self._pool: Any = None  # the memory that they share, as one is replayed at a time
        self._inputs: dict[Hashable, Tensor] = {}  # what recorded steps read
        self._replayed: deque[torch.cuda.Event] = deque()  # the ends of the last steps

    def __call__(self, take: Step, batches: Sequence[Batch], stage: Hashable, variant: Hashable) -> dict[str, Tensor]:
        """Take a step.

        Args:
            take: the step.
            batches: its micro-batches.
            stage: what the training is at. When a new one begins, the records of the last are dropped, so that
                there is never the memory of two.
            variant: what steps of a stage may differ in besides the batches' shapes.

        Raises:
            CaptureError: it cannot be recorded, and was not taken.
        """
        if stage != self._stage:
            self._stage, self._pool = stage, torch.cuda.graph_pool_handle()
            self._records.clear()
            return take(batches)
        inputs = [self.copied(batch, index) for index, batch in enumerate(batches)]
        kind = variant, *(id(tensor) for batch in inputs for tensor in batch)
        if kind not in self._records:
            self._records[kind] = self._record(take, inputs)
        graph, results = self._records[kind]
        graph.replay()
        values = torch.stack(list(results.values()))  # the next replay writes over the results
        self._keep_pace()
        return dict(zip(results, values, strict=True))

    def copied(self, batch: Batch, index: int) -> Batch:
        """A micro-batch in the memory that all those of its place and shape come to."""
        copies: dict[str, Any] = {}
        for name, tensor in batch._asdict().items():
            place = index, name, None if tensor is None else tensor.shape
            if tensor is not None and place not in self._inputs:
                self._inputs[place] = torch.empty_like(tensor)
            copies[name] = None if tensor is None else self._inputs[place].copy_(tensor)
        return Batch(**copies)

    def _record(self, take: Step, inputs: Sequence[Batch]) -> Record:
        graph = torch.cuda.CUDAGraph()
        try:
            # A capture that fails leaves its own stream current. The loader's threads may do what this one may not.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
            ):
                return Record(graph, take(inputs))
        except RuntimeError as error:
            raise CaptureError(_first_line(error)) from error

    def _keep_pace(self) -> None:
        """Wait until the device is no more than AHEAD steps behind."""
        done = torch.cuda.Event(blocking=True)
        done.record()
        self._replayed.append(done)
        if len(self._replayed) > AHEAD:
            self._replayed.popleft().synchronize()


def step_graphs(config: TrainConfig, device: torch.device, world: World) -> tuple[StepGraphs | None, str | None]:
    """What takes the steps as graphs; or None, and why, if there is more to say than that this is no GPU.

    Raises:
        UserError: graphs are asked for where they cannot be.
    """
    on_gpu = device.type == "cuda"
    if config.graph is True and not (on_gpu and world.size == 1):
        got = f"{world.size} processes" if on_gpu else device
        raise UserError(f"train.graph true needs a single process on a CUDA device, got {got}")
    if on_gpu and config.graph is False:
        return None, "train.graph false"
    if on_gpu and world.size > 1:
        return None, "several processes exchange their gradients"
    return (StepGraphs(), None) if on_gpu else (None, None)


def _first_line(error: BaseException) -> str:
    """What went wrong first: the capture's own error, that it cannot be ended, comes on top of it."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
