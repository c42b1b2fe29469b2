"""A step as a CUDA graph: recorded once and then replayed, so that the GPU need not wait for Python.

A step is thousands of kernels, and Python takes longer to start them than the GPU to run them. So of the steps of a
stage, which compute the same on other numbers,

    the first       runs as any PyTorch program: what is made once is made, such as the optimizer's state
    the second      too, and is watched: where it reads a value from the device, it cannot be recorded
    the third       is recorded: Python goes through it, and the GPU only notes what it is told; then it is replayed
    all others      are replayed: the batch is copied to where the recorded step reads it, the GPU repeats the step

What else changes from step to step `TrainStep.set_numbers` writes to where the recorded step reads that. Stages are the
warm-up on labels alone, the ramp, and what follows; where a step that is logged does more, it is recorded by itself.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maskmatch.common.batch import Batch
from maskmatch.common.errors import UserError
from maskmatch.config import TrainConfig
from maskmatch.training.distributed import World

AHEAD = 4  # steps that the host may be ahead of the device, each of which keeps its batch's memory

Step = Callable[[Sequence[Batch]], dict[str, Tensor]]
"""From the micro-batches to scalars by name, on the device; whatever else it changes stays in its memory."""


class Record(NamedTuple):
    """A recorded step."""

    graph: torch.cuda.CUDAGraph
    results: dict[str, Tensor]  # where a replay leaves them


class StepGraphs:
    """Takes steps, by replaying the record of one that computed the same; as they are, once `fault` says why.

    Args:
        config: `graph`, whether it is an error where a step cannot be recorded, and `compile`.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.fault: str | None = None
        self._stage: Hashable = None
        self._taken = 0  # steps of this stage
        self.records: dict[Hashable, Record] = {}  # of this stage, by kind
        self._pool: Any = None  # the memory that they share, as one is replayed at a time
        self._compiled: set[Hashable] = set()  # kinds of steps that have run
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
            UserError: it cannot be recorded, and `train.graph` is true.
        """
        if stage != self._stage:
            self._stage, self._taken, self._pool = stage, 0, torch.cuda.graph_pool_handle()
            self.records.clear()
        self._taken += 1
        if self.fault or self._taken == 1:
            return take(batches)
        if self._taken == 2:
            return self._watched(take, batches)
        inputs = [self.copied(batch, index) for index, batch in enumerate(batches)]
        kind = variant, *(id(tensor) for batch in inputs for tensor in batch)
        if self.config.compile and kind not in self._compiled:  # which must not happen in a capture
            self._compiled.add(kind)
            return take(batches)
        if kind not in self.records:
            try:
                self.records[kind] = self._record(take, inputs)
            except RuntimeError as error:
                self._give_up(_first_line(error))
                _recover(self._pool, batches[0].images.device)
                return take(batches)
        graph, results = self.records[kind]
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

    def _watched(self, take: Step, batches: Sequence[Batch]) -> dict[str, Tensor]:
        if self.config.compile:  # as one graph, with nothing read between
            return take(batches)
        with Watch() as watch:
            found = take(batches)
        if watch.seen:
            self._give_up(watch.seen)
        return found

    def _record(self, take: Step, inputs: Sequence[Batch]) -> Record:
        graph = torch.cuda.CUDAGraph()
        # A capture that fails leaves its own stream current. The loader's threads may do what this one may not.
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
        ):
            return Record(graph, take(inputs))

    def _give_up(self, reason: str) -> None:
        if self.config.graph is True:
            raise UserError(f"train.graph true, but this step cannot be captured: {reason}")
        self.fault = reason
        self.records.clear()

    def _keep_pace(self) -> None:
        """Wait until the device is no more than AHEAD steps behind."""
        done = torch.cuda.Event(blocking=True)
        done.record()
        self._replayed.append(done)
        if len(self._replayed) > AHEAD:
            self._replayed.popleft().synchronize()


class Watch(TorchDispatchMode):
    """Notes the first operator that brings a value to the host or from it, or whose result is as large as a value."""

    READERS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "bincount")

    def __init__(self) -> None:
        super().__init__()
        self.seen: str | None = None

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        name = function.name().removeprefix("aten::").partition(".")[0]
        copied = (args[0], args[1] if name == "copy_" else results) if name in ("copy_", "_to_copy") else ()
        crosses = len({tensor.device for tensor in copied}) > 1
        if self.seen is None and (crosses or name in self.READERS):
            self.seen = f"{name} waits for the device{_place()}"
        return results


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
    return (StepGraphs(config), None) if on_gpu else (None, None)


def _recover(pool: Any, device: torch.device) -> None:
    """Put right what torch leaves undone where a capture cannot be ended, so that steps can go on as they are.

    Its allocator still keeps memory back for the capture, and its generator still expects one to be going on.

    Raises:
        UserError: they cannot.
    """
    with contextlib.suppress(RuntimeError):  # the first says that the capture was ended, and all is well
        torch._C._cuda_endAllocateToPool(device.index, pool)
        torch._C._cuda_releasePool(device.index, pool)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, pool=torch.cuda.graph_pool_handle(), capture_error_mode="thread_local"):
            torch.zeros((), device=device)
        torch.rand((), device=device)
    except RuntimeError as error:
        raise UserError("train.graph: a step could not be recorded, and none can follow; take false") from error
    torch.cuda.manual_seed(torch.cuda.initial_seed())  # as it was before


def _first_line(error: BaseException) -> str:
    """What went wrong first: the capture's own error, that it cannot be ended, comes on top of it."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _place() -> str:
    """Where the code outside of torch is."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        if "/torch/" not in frame.f_code.co_filename:
            return f" in {frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
