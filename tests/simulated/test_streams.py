"""Streams and events."""

import threading
import time

import pytest
import torch

from bench.simulated.devices import device as device_of


def _work(seconds):
    device_of(0).queue.launch(lambda: time.sleep(seconds))


def test_events_measure_the_time_between_them():
    begin, end = torch.Event(enable_timing=True), torch.sim.Event(enable_timing=True)
    begin.record()
    _work(0.05)
    end.record()
    assert not end.query()
    with pytest.raises(RuntimeError, match="must be recorded and completed"):
        begin.elapsed_time(end)
    end.synchronize()
    assert end.query()
    assert 50 <= begin.elapsed_time(end) < 5000
    assert device_of(0).counters.waits == {"event": 1}


def test_events_without_times_have_none():
    begin, end = torch.Event(), torch.Event(enable_timing=True)
    begin.record()
    end.record()
    end.synchronize()
    with pytest.raises(RuntimeError, match="enable_timing=True"):
        begin.elapsed_time(end)


def test_streams_become_current_with_their_device():
    first, second = torch.Stream("sim:0"), torch.sim.Stream(device="sim:1")
    assert first.stream_id != second.stream_id
    with first, second:
        assert torch.accelerator.current_stream() == second
        assert torch.sim.current_stream(0) == first
        assert torch.ones(2, device="sim").device == torch.device("sim:1")
    assert torch.accelerator.current_stream().stream_id == 0
    assert torch.sim.current_device() == 0


def test_a_stream_is_waited_for():
    stream = torch.accelerator.current_stream()
    _work(0.05)
    assert not stream.query()
    stream.synchronize()
    assert stream.query()
    assert device_of(0).counters.waits == {"stream": 1}


def test_a_stream_of_another_device_waits_for_an_event():
    gate = threading.Event()
    device_of(0).queue.mark(gate.wait)
    torch.sim.Stream("sim:1").wait_stream(torch.sim.Stream("sim:0"))
    late = torch.Event("sim:1")
    late.record(torch.sim.default_stream(1))
    time.sleep(0.05)
    assert not late.query()
    gate.set()
    late.synchronize()
    assert late.query()
