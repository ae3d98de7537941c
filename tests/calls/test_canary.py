"""The canary: a fixed piece of work that disturbs nothing."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from bench.calls import canary
from bench.calls.canary import time_canary
from bench.calls.device import Cpu

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_canary_takes_its_time_and_leaves_the_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    began = time.perf_counter()
    median = time_canary(Cpu(), seconds=0.05)
    assert time.perf_counter() - began >= 0.05
    assert 0 < median < 1
    assert torch.equal(torch.rand(1), expected)


def test_the_canary_is_the_median_of_its_samples(monkeypatch: pytest.MonkeyPatch):
    readings = iter([0.0, 1.0, 1.0, 3.0, 3.0, 4.0, 4.0, 5.0, 5.0, 25.0])
    monkeypatch.setattr(canary, "clock", lambda _device: next(readings))
    assert time_canary(Cpu(), seconds=0.0) == 1.0


def test_the_canary_computes_on_the_device(monkeypatch: pytest.MonkeyPatch):
    used: list[Any] = []

    def clock(device: Any) -> float:
        used.append(device)
        return float(len(used))

    monkeypatch.setattr(canary, "clock", clock)
    device = Cpu()
    time_canary(device, seconds=0.0)
    assert len(used) == 2 * canary.FEWEST
    assert set(used) == {device}
