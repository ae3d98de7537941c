"""Who waits for copies, and what they read."""

import threading

import torch

from bench.simulated.devices import device as device_of


def _counters():
    return device_of(0).counters


def _held(index=0):
    """Stops the device until the event is set."""
    gate = threading.Event()
    device_of(index).queue.mark(gate.wait)
    return gate


def test_pinned_memory_is_read_when_the_device_gets_there():
    pinned = torch.zeros(3).pin_memory()
    assert pinned.is_pinned()
    assert pinned.pin_memory() is pinned
    assert not torch.zeros(3).is_pinned()
    gate = _held()
    there = pinned.to("sim", non_blocking=True)
    pinned.fill_(5)
    gate.set()
    assert there.tolist() == [5, 5, 5]
    assert "copy to device" not in _counters().waits


def test_other_memory_is_read_immediately():
    source = torch.zeros(3)
    gate = _held()
    there = source.to("sim", non_blocking=True)
    source.fill_(5)
    gate.set()
    assert there.tolist() == [0, 0, 0]


def test_a_copy_to_the_host_that_does_not_block_arrives_later():
    there = torch.ones(3, device="sim")
    gate = _held()
    here = there.to("cpu", non_blocking=True)
    assert here.is_pinned()
    here.fill_(9)
    gate.set()
    torch.accelerator.synchronize()
    assert here.tolist() == [1, 1, 1]
    assert _counters().waits == {"synchronize": 1}


def test_a_copy_to_memory_that_is_not_pinned_waits():
    here = torch.zeros(3)
    here.copy_(torch.ones(3, device="sim"), non_blocking=True)
    assert here.tolist() == [1, 1, 1]
    assert _counters().waits == {"copy to host": 1}


def test_copies_between_devices_keep_the_order_of_both():
    source = torch.ones(3, device="sim:0")
    gate = _held(0)
    source.add_(1)
    there = source.to("sim:1")
    source.add_(10)
    again = there * 2
    gate.set()
    assert again.tolist() == [4, 4, 4]
    assert source.tolist() == [12, 12, 12]
    assert device_of(1).counters.copies == {"device to device": 1, "device to host": 1}
