"""Streams and events. All streams of a device share its one queue: nothing overlaps."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import torch

from .devices import Device, current_index, set_current
from .devices import device as device_of
from .settings import TYPE

_TorchStream: Any = torch._C.Stream
_TorchEvent: Any = torch._C.Event
_new_id = itertools.count(1)


class Stream(_TorchStream):
    """Replaces ``torch.Stream``: a name for the queue of a device."""

    def __new__(cls, device: Any = None, *, priority: int = 0, stream_id: int | None = None, **_: Any) -> Any:
        if device is not None and torch.device(device).type != TYPE:
            return _TorchStream(device, priority=priority)
        return super().__new__(
            cls,
            stream_id=next(_new_id) if stream_id is None else stream_id,
            device_index=device_of(device).index,
            device_type=int(torch._C._autograd.DeviceType.PrivateUse1),
        )

    def __init__(self, *_: Any, **__: Any) -> None:
        self._before: list[tuple[int, Stream]] = []

    @property
    def _queue_owner(self) -> Device:
        return device_of(self.device_index)

    def query(self) -> bool:
        """Whether all work of the device is done."""
        return self._queue_owner.queue.idle

    def synchronize(self) -> None:
        """Raises:
        torch.AcceleratorError: a kernel failed.
        """
        self._queue_owner.wait("stream")

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self.device)
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        event.wait(self)

    def wait_stream(self, stream: Stream) -> None:
        if stream.device_index != self.device_index:
            self.wait_event(stream.record_event())

    def __enter__(self) -> Stream:
        self._before.append((current_index(), current_stream(self.device_index)))
        set_stream(self)
        return self

    def __exit__(self, *_: object) -> None:
        index, stream = self._before.pop()
        set_stream(stream)
        set_current(index)


class _Current(threading.local):
    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}


_current = _Current()


def default_stream(which: Any = None) -> Stream:
    return Stream(device_of(which).torch_device, stream_id=0)


def current_stream(which: Any = None) -> Stream:
    """The current stream of a device in this thread."""
    index = device_of(which).index
    if index not in _current.streams:
        _current.streams[index] = default_stream(index)
    return _current.streams[index]


def set_stream(stream: Stream) -> None:
    """Makes the stream and its device current."""
    set_current(stream.device_index)
    _current.streams[stream.device_index] = stream


class Event(_TorchEvent):
    """Replaces ``torch.Event``: a mark in the queue, with its time if ``enable_timing``."""

    def __new__(cls, device: Any = None, **kwargs: Any) -> Any:
        if device is not None and torch.device(device).type != TYPE:
            return _TorchEvent(device, **kwargs)
        return super().__new__(cls, device=device_of(device).torch_device)

    def __init__(
        self, device: Any = None, *, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self._device, self._timed = device_of(device), enable_timing
        self._done: threading.Event | None = None
        self._time = 0.0

    def record(self, stream: Stream | None = None) -> None:
        """Puts the mark behind all work so far."""
        self._device = device_of(None if stream is None else stream.device_index)
        self._device.queue.check()
        self._done = done = threading.Event()

        def mark() -> None:
            self._time = time.perf_counter()
            done.set()

        self._device.queue.mark(mark)

    def query(self) -> bool:
        """Whether the work before the mark is done; true for an event that was never recorded."""
        return self._done is None or self._done.is_set()

    def wait(self, stream: Stream | None = None) -> None:
        """Lets the stream's device wait for the mark; the host continues."""
        device = device_of(None if stream is None else stream.device_index)
        if self._done is not None and device is not self._device:
            device.queue.mark(self._done.wait)

    def synchronize(self) -> None:
        """Lets the host wait for the mark.

        Raises:
            torch.AcceleratorError: a kernel failed.
        """
        if self._done is not None:
            self._device.counters.waits["event"] += 1
            self._done.wait()
            self._device.queue.raise_failure()

    def elapsed_time(self, other: Event) -> float:
        """Milliseconds of the device from this mark to the other.

        Raises:
            RuntimeError: an event was made without ``enable_timing``, or its mark is not reached yet.
        """
        if not (self._timed and other._timed):
            raise RuntimeError("Both events must be created with argument 'enable_timing=True'.")
        if self._done is None or other._done is None or not (self.query() and other.query()):
            raise RuntimeError("Both events must be recorded and completed before calculating elapsed time.")
        return 1000 * (other._time - self._time)
