"""The simulated devices of this process, and which of them is the current one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .counters import Counters
from .memory import Memory
from .settings import TYPE, Settings
from .work_queue import WorkQueue


@dataclass(frozen=True, eq=False)
class Device:
    """One simulated device: its queue, its memory and its counters."""

    index: int
    queue: WorkQueue
    memory: Memory
    counters: Counters

    @property
    def torch_device(self) -> torch.device:
        return torch.device(TYPE, self.index)

    def launch(self, kernel: Callable[[], object]) -> None:
        self.queue.launch(kernel)
        self.counters.kernels += 1

    def wait(self, cause: str) -> None:
        """The host waits for all work so far, counted under the cause.

        Raises:
            torch.AcceleratorError: a kernel failed.
        """
        self.counters.waits[cause] += 1
        self.queue.wait()


_devices: list[Device] = []
_current = threading.local()
_crossing = threading.Lock()


def start(settings: Settings) -> None:
    """Starts the devices; once in a process."""
    for index in range(settings.devices):
        name = f"{TYPE}:{index}"
        queue, memory = WorkQueue(name, settings.latency_s), Memory(name, settings.memory_bytes)
        _devices.append(Device(index, queue, memory, Counters()))


def stop() -> None:
    for device in _devices:
        device.queue.stop()


def empty_caches() -> None:
    for device in _devices:
        device.memory.empty_cache()


def count() -> int:
    return len(_devices)


def all_devices() -> tuple[Device, ...]:
    return tuple(_devices)


def current_index() -> int:
    """The current device of this thread of the host."""
    return getattr(_current, "index", 0)


def set_current(index: int) -> int:
    """Makes this device the current one and returns the index of the former; a negative index changes nothing.

    Raises:
        torch.AcceleratorError: there is no such device.
    """
    former = current_index()
    if index >= 0:
        _current.index = device(index).index
    return former


def device(which: Any = None) -> Device:
    """The device of this name or index; without an index, the current one.

    Raises:
        torch.AcceleratorError: there is no such device.
        ValueError: the name is of another type of device.
    """
    if isinstance(which, str):
        which = torch.device(which)
    if isinstance(which, torch.device):
        if which.type != TYPE:
            raise ValueError(f"expected a {TYPE} device, got {which}.")
        which = which.index
    index: int = current_index() if which is None else which
    if not 0 <= index < len(_devices):
        raise torch.AcceleratorError(f"{TYPE}:{index}: no such device, there are {len(_devices)} of them.")
    return _devices[index]


def launch_across(source: Device, target: Device, action: Callable[[], object]) -> None:
    """Queues an action on the target that starts after all work of the source, which continues after it."""
    begin, end = threading.Event(), threading.Event()

    def meet() -> None:
        begin.set()
        end.wait()

    # Two threads that copy in opposite directions would otherwise wait for each other forever.
    with _crossing:
        source.queue.check()
        target.queue.check()
        source.queue.mark(meet)
        target.queue.mark(begin.wait)
        try:
            target.queue.launch(action)
        finally:
            target.queue.mark(end.set)
