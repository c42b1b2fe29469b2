"""A GPU that is not there: fake CUDA tensors, whose shapes, dtypes and devices are right and whose values nobody has.

The checks that torch.cuda makes of its arguments in Python are its own; its C calls are stood in for. Streams and
events keep the order of what is put on them, and whatever waits for the device is counted.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

PROPERTIES = SimpleNamespace(
    name="a GPU that is not there", major=9, minor=0, total_memory=80 * 2**30, multi_processor_count=132, warp_size=32,
    max_threads_per_multi_processor=2048, regs_per_multiprocessor=65536, gcnArchName="", L2_cache_size=50 * 2**20,
)  # fmt: skip


class FakeMode(FakeTensorMode):
    """FakeTensorMode beside which torch.cuda.is_available() may say yes; real tensors become fake ones.

    Threads take turns in it: it remembers on itself what it is in the middle of. One thing of that, by which a tensor
    knows where to say it is, must be each thread's own.
    """

    avoid_device_init = True

    def __init__(self) -> None:
        self._thread = threading.local()
        super().__init__(allow_non_fake_inputs=True)
        self.turn = threading.RLock()

    @property
    def in_kernel_invocation(self) -> bool:
        return getattr(self._thread, "in_kernel_invocation", False)

    @in_kernel_invocation.setter
    def in_kernel_invocation(self, value: bool) -> None:
        self._thread.in_kernel_invocation = value

    def __deepcopy__(self, memo: Any) -> FakeMode:
        return self  # a copied network stays on the same device

    def __torch_dispatch__(self, *args: Any, **kwargs: Any) -> Any:
        with self.turn:
            return super().__torch_dispatch__(*args, **kwargs)


class Device:
    """What the stand-ins share: whether waiting is refused, who waited, and what is known to have happened before."""

    def __init__(self) -> None:
        self.mode = FakeMode()
        self.waits: Counter[str] = Counter()
        self.refuses_waiting = False
        self.default_stream = Stream(device=self)
        self.recorded: list[tuple[torch.Tensor, Stream]] = []  # by Tensor.record_stream
        self._thread = threading.local()

    def wait(self, what: str) -> None:
        """The host waits for the device."""
        self.waits[what] += 1
        if self.refuses_waiting:
            raise WaitError(f"{what} waits for the device")

    @property
    def stream(self) -> Stream:
        """The current one of this thread."""
        return getattr(self._thread, "stream", self.default_stream)

    @stream.setter
    def stream(self, stream: Stream) -> None:
        self._thread.stream = stream


class WaitError(Exception):
    """The host would have to wait for the device."""


class Stream:
    """Work in its order. `seen` says how much of each stream has happened before whatever comes next on this one."""

    def __init__(self, *args: Any, device: Any = None, **options: Any) -> None:
        self.owner: Device = device if isinstance(device, Device) else CURRENT[-1]
        self.device = torch.device("cuda", 0)
        self.device_index, self.device_type, self.stream_id, self.cuda_stream = 0, 1, id(self), id(self)
        self.done = 0
        self.seen: dict[Stream, int] = {}

    def work(self) -> int:
        """Put something on it; its number."""
        self.done += 1
        self.seen[self] = self.done
        return self.done

    def synchronize(self) -> None:
        self.owner.wait("Stream.synchronize")

    def query(self) -> bool:
        return True

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        for stream, number in event.seen.items():
            self.seen[stream] = max(self.seen.get(stream, 0), number)

    def wait_stream(self, other: Stream) -> None:
        self.wait_event(other.record_event())


class Event:
    """A point in a stream."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self.timed, self.blocking, self.recorded = enable_timing, blocking, False
        self.seen: dict[Stream, int] = {}

    def record(self, stream: Stream | None = None) -> None:
        self.recorded = True
        self.seen = dict((stream or CURRENT[-1].stream).seen)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or CURRENT[-1].stream).wait_event(self)

    def query(self) -> bool:
        return self.recorded

    def synchronize(self) -> None:
        if not self.blocking:  # else it is meant: the host keeps no more than some steps ahead
            CURRENT[-1].wait("Event.synchronize")

    def elapsed_time(self, end: Event) -> float:
        if not (self.timed and end.timed and self.recorded and end.recorded):
            raise RuntimeError("Both events must be recorded, with enable_timing=True")
        return 1.0


class CUDAGraph:
    """Replays nothing, as nobody has the values."""

    def replay(self) -> None:
        CURRENT[-1].stream.work()


@contextmanager
def capture(graph: CUDAGraph, pool: Any, capture_error_mode: str) -> Iterator[None]:
    """What torch.cuda.graph is: on a stream of its own, the backward pass's thread, too; nothing may wait."""
    device, own = CURRENT[-1], Stream()
    stream, refused = device.stream, device.refuses_waiting
    own.wait_stream(stream)
    device.stream = device.default_stream = own
    device.refuses_waiting = True
    try:
        yield
    finally:
        stream.wait_stream(own)
        device.stream = device.default_stream = stream
        device.refuses_waiting = refused


CURRENT: list[Device] = []
PINNED = "_is_pinned_for_the_fake_device"


def pin_memory(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
    """A copy in what would be pinned memory."""
    if tensor.device.type != "cpu":
        raise RuntimeError(f"cannot pin '{tensor.type()}' only dense CPU tensors can be pinned")
    pinned = tensor.clone()
    setattr(pinned, PINNED, True)
    return pinned


def _set_device(index: int) -> None:
    if index != 0:
        raise RuntimeError("CUDA error: invalid device ordinal")


@contextmanager
def fake_device() -> Iterator[Device]:
    """Inside, there is one GPU, and in this thread every tensor is fake."""
    device = Device()
    memory = {"allocated_bytes": {"all": {"current": 1, "peak": 1, "allocated": 1, "freed": 0}}}
    stand_ins: list[tuple[Any, str, Any]] = [
        (torch.cuda, "_initialized", True),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "_get_device_properties", lambda index: PROPERTIES),
        (torch.cuda, "default_generators", (torch.Generator(),)),
        (torch.cuda, "CUDAGraph", CUDAGraph),
        (torch.cuda, "graph", capture),
        (torch.cuda, "graph_pool_handle", object),
        (torch.cuda, "Event", Event),
        (torch.cuda, "Stream", Stream),
        (torch.cuda, "current_stream", lambda device=None: device_stream(device)),
        (torch.cuda, "set_stream", lambda stream: setattr(CURRENT[-1], "stream", stream)),
        (torch._C, "_cuda_setDevice", _set_device),
        (torch._C, "_cuda_getDevice", lambda: 0),
        (torch._C, "_cuda_getDeviceCount", lambda: 1),
        (torch._C, "_cuda_synchronize", lambda: device.wait("torch.cuda.synchronize")),
        (torch._C, "_cuda_memoryStats", lambda index: memory),
        (torch._C, "_cuda_resetPeakMemoryStats", lambda index: None),
        (torch.Tensor, "pin_memory", pin_memory),
        (torch.Tensor, "record_stream", lambda tensor, stream: device.recorded.append((tensor, stream))),
    ]
    with ExitStack() as stack:
        CURRENT.append(device)
        stack.callback(CURRENT.pop)
        stack.enter_context(device.mode)  # before is_available is stood in for
        for owner, name, value in stand_ins:
            stack.enter_context(mock.patch.object(owner, name, value, create=True))
        yield device


def device_stream(device: Any) -> Stream:
    torch.cuda._utils._get_device_index(device, optional=True)  # torch's own check
    return CURRENT[-1].stream
