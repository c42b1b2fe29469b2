"""Several processes as one run, as torchrun starts them: who this is, what all share, who speaks.

The gradients are DistributedDataParallel's business. What crosses processes besides is small: sums of a few
numbers, what the leading process found on the disk, and whether somebody was told to stop.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskmatch.common.device import find_device
from maskmatch.common.errors import UserError

T = TypeVar("T")


class Vote:
    """A question to all processes, which must ask it alike; the answer comes while they go on."""

    def __init__(self, flag: bool) -> None:
        self._raised = torch.tensor(int(flag))
        self._work = dist.all_reduce(self._raised, op=dist.ReduceOp.MAX, async_op=True)

    def result(self) -> bool:
        """Whether any process raised its flag; waits for the others if need be."""
        self._work.wait()
        return bool(self._raised)


class World:
    """The processes of a run; a single one unless torchrun says otherwise.

    Every method but the properties is to be called by all processes, in the same order.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank

    @property
    def leads(self) -> bool:
        """Whether this is the process that prints, and writes the run folder."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes; on a GPU without waiting for it."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def share(self, value: T) -> T:
        """The leader's value."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def copy(self, network: nn.Module) -> None:
        """Give every process the leader's parameters and buffers."""
        if self.size > 1:
            with torch.no_grad():
                for tensor in network.state_dict().values():
                    dense = tensor.contiguous()  # a channels-last weight is none
                    dist.broadcast(dense, src=0)
                    tensor.copy_(dense)

    def barrier(self) -> None:
        """Wait for all processes."""
        self.sum(torch.zeros(()))

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Each machine's first process runs the body alone, then the others: it may write what they then find."""
        if self.local_rank:
            self.barrier()
        yield
        if not self.local_rank:
            self.barrier()

    def vote(self, flag: bool) -> Vote:
        """Ask all processes whether any raises its flag; none waits before it looks at the result."""
        return Vote(flag)

    def replicate(self, network: nn.Module, plain: nn.Module, inputs: Tensor) -> nn.Module:
        """The network with its gradients averaged over the processes.

        Args:
            network: as it is called; may be compiled.
            plain: the same, not compiled.
            inputs: some that it takes.
        """
        if self.size == 1:
            return network
        device = inputs.device
        return DistributedDataParallel(
            network,
            device_ids=[device] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=_has_unused_parameters(plain, inputs),
            # SyncBatchNorm's buffers are equal, and `average_statistics` makes the others so.
            **dict[str, Any]({_BUFFERS_OPTION: False}),
        )

    def average_statistics(self, statistics: Sequence[Tensor]) -> None:
        """Average BatchNorm's running statistics, where no SyncBatchNorm keeps them equal: on the CPU."""
        if self.size > 1:
            for part in statistics:
                if not part.is_cuda:
                    part.copy_(self.sum(part) / self.size)


def join(device_name: str, option: str = "train.device") -> tuple[World, torch.device]:
    """Take this process's place among those that torchrun started, and its device.

    Args:
        device_name: `auto`, `cpu`, `cuda` or `cuda:N`.
        option: what the message calls it where it is wrong.

    Raises:
        UserError: there is no such device, or not one for every process.
    """
    world = World(*(int(os.environ.get(name, default)) for name, default in _TORCHRUN.items()))
    device = find_device(device_name, option, world.local_rank if world.size > 1 else None)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world.size > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return world, device


def leave() -> None:
    """Take leave of the other processes, at the end of a run that went through."""
    if dist.is_initialized():
        dist.destroy_process_group()


def lost_process(error: RuntimeError) -> UserError | None:
    """What to say instead of `error` where it came of another process having ended."""
    if dist.is_initialized() and any(sign in str(error) for sign in _SIGNS_OF_LOSS):
        return UserError("another process of this run has ended; its own message says why")
    return None


_SIGNS_OF_LOSS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
_BUFFERS_OPTION = (  # renamed in torch 2.14
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)
_TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def synchronize_batchnorm(network: nn.Module, world: World, device: torch.device) -> nn.Module:
    """BatchNorm over the whole batch of all processes, on GPUs; torch has none for the CPU."""
    if world.size == 1 or device.type != "cuda":
        return network
    return convert_sync_batchnorm(network)  # timm's: torch's would drop the activations in timm's layers


def _has_unused_parameters(network: nn.Module, inputs: Tensor) -> bool:
    """Whether some parameter has no part in the output: DistributedDataParallel would wait for its gradient."""
    training = [module for module in network.modules() if module.training]
    network.eval()  # leaves the running statistics alone
    network(inputs).sum().backward()
    for module in training:
        module.training = True
    unused = any(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    network.zero_grad(set_to_none=True)
    return unused
