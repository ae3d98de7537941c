"""Which device a run uses, and whether its clock and its memory counter can be trusted."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from bench.calls import device as devices
from bench.calls.device import (
    Accelerator,
    Cpu,
    DeviceError,
    PeakMemory,
    check_clock,
    choose_device,
    clock,
    clock_leftover,
    measured_memory,
    require_device,
)

GPU = Accelerator(torch.device("cuda", 1))


@pytest.fixture
def machine(monkeypatch):
    """Imitates a machine; torch names its build's accelerator even without one."""

    def imitate(built_for, count):
        accelerator = torch.device(built_for) if built_for else None
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_, **__: accelerator)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)

    return imitate


@pytest.fixture
def calls(monkeypatch):
    """The calls of ``torch.accelerator``, in order."""
    noted: list[tuple] = []

    def noting(name, answer):
        def call(*given):
            noted.append((name, *given))
            return answer

        return call

    for name, answer in {
        "synchronize": None,
        "empty_cache": None,
        "reset_peak_memory_stats": None,
        "max_memory_allocated": 4096,
        "max_memory_reserved": 8192,
    }.items():
        monkeypatch.setattr(torch.accelerator, name, noting(name, answer))
    return noted


@pytest.fixture
def without_counters(monkeypatch, calls):
    """A backend whose memory counters raise; everything else works."""

    def refuse(error):
        def no_counter(*_):
            raise error

        for name in ("reset_peak_memory_stats", "max_memory_allocated", "max_memory_reserved", "get_memory_info"):
            monkeypatch.setattr(torch.accelerator, name, no_counter, raising=False)

    return refuse


@pytest.fixture
def simulated(monkeypatch):
    """A device that works off a queue in simulated time; its clock waits for the queue if ``waits``."""

    def simulate(waits, seconds_per_product=0.0005):
        state = SimpleNamespace(now=100.0, free=100.0)

        def launch(*_, **__):
            state.now += 0.00001
            state.free = max(state.free, state.now) + seconds_per_product
            return matrix

        def wait():
            state.now = max(state.now, state.free)

        matrix = MagicMock()
        matrix.__matmul__.side_effect = launch
        matrix.__getitem__.return_value.item.side_effect = wait
        monkeypatch.setattr(devices, "time", SimpleNamespace(perf_counter=lambda: state.now))
        monkeypatch.setattr(devices, "torch", SimpleNamespace(randn=launch, tanh=lambda product: product))
        return fake(synchronize=wait if waits else lambda: None)

    return simulate


def fake(kind: str = "cuda", **methods: Any) -> Any:
    return SimpleNamespace(type=kind, name=f"Imaginary {kind}", torch_device=torch.device(kind, 0), **methods)


def refused(question, *given) -> str:
    with pytest.raises(DeviceError) as caught:
        question(*given)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize(
    ("built_for", "count", "wanted", "chosen"),
    [
        ("cuda", 0, "auto", "cpu"),
        ("cuda", 0, "cpu", "cpu"),
        ("cuda", 2, "auto", "cuda:0"),
        ("cuda", 2, "cuda", "cuda:0"),
        ("cuda", 2, "cuda:1", "cuda:1"),
        ("cuda", 2, "cpu", "cpu"),
        ("mps", 1, "auto", "mps:0"),
        ("mps", 1, "mps", "mps:0"),
        ("xpu", 1, "xpu:0", "xpu:0"),
        (None, 0, "auto", "cpu"),
    ],
)
def test_the_device_is_the_one_asked_for_or_the_best_there_is(machine, built_for, count, wanted, chosen):
    machine(built_for, count)
    device = choose_device(wanted)
    assert str(device.torch_device) == chosen
    assert device.type == chosen.partition(":")[0]


@pytest.mark.parametrize(
    ("built_for", "count", "wanted", "words"),
    [
        ("cuda", 0, "cuda", "sees none here"),
        ("cuda", 0, "cuda:0", "sees none here"),
        (None, 0, "cuda", "sees none here"),
        ("cuda", 2, "cuda:2", "this machine has 2 of them"),
        ("cuda", 2, "cuda:7", "this machine has 2 of them"),
        ("cuda", 2, "mps", "sees none here"),
        ("mps", 1, "cuda", "sees none here"),
        ("mps", 1, "mps:1", "this machine has 1 of them"),
    ],
)
def test_a_device_that_is_not_here_is_refused_in_one_sentence(machine, built_for, count, wanted, words):
    machine(built_for, count)
    sentence = refused(choose_device, wanted)
    assert f"--device {wanted}:" in sentence
    assert words in sentence


@pytest.mark.parametrize("wanted", ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "", "cpu,cuda"])
def test_an_unknown_device_is_refused_with_names_to_try(machine, wanted):
    machine("cuda", 2)
    sentence = refused(choose_device, wanted)
    assert f"--device {wanted}:" in sentence
    assert "auto, cpu, cuda" in sentence


@pytest.mark.parametrize(
    ("device", "wanted"), [(Cpu(), "cpu"), (fake("cuda"), "cuda"), (fake("cuda"), "cuda:0"), (fake("mps"), "mps")]
)
def test_a_run_on_the_required_device_continues(device, wanted):
    require_device(device, wanted)


@pytest.mark.parametrize(
    ("device", "wanted"), [(Cpu(), "cuda"), (fake("mps"), "cuda"), (fake("cuda"), "cpu"), (fake(), "cuda:1")]
)
def test_a_run_on_another_device_than_the_required_one_is_refused(device, wanted):
    sentence = refused(require_device, device, wanted)
    assert f"--require-device {wanted}" in sentence
    assert device.type in sentence
    assert device.name in sentence


def test_a_peak_is_reported_in_bytes_and_without_a_reason(calls):
    assert GPU.peak_memory() == PeakMemory(4096, None, 8192, None)
    assert calls == [("max_memory_allocated", GPU.torch_device), ("max_memory_reserved", GPU.torch_device)]


def test_a_peak_of_zero_is_reported_as_a_reason(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda *_: 0)
    peak = GPU.peak_memory()
    assert peak.allocated is None
    assert peak.reason == "the peak counter of cuda returns 0"


def test_memory_that_torch_held_is_counted_apart(monkeypatch, calls):
    monkeypatch.setattr(torch.accelerator, "max_memory_reserved", lambda *_: 0)
    why = "the peak counter of reserved memory of cuda returns 0"
    assert GPU.peak_memory() == PeakMemory(4096, None, None, why)


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, AttributeError])
def test_a_counter_that_raises_is_reported_as_a_reason(without_counters, error):
    without_counters(error("no statistics here"))
    assert GPU.peak_memory() == PeakMemory(
        None,
        "cuda has no peak counter (no statistics here)",
        None,
        "cuda has no peak counter of reserved memory (no statistics here)",
    )


def test_the_reason_for_a_missing_peak_is_one_line(without_counters):
    without_counters(RuntimeError("no statistics here\nException raised from allocator.cpp:17"))
    reason = GPU.peak_memory().reason
    assert reason
    assert "no statistics here" in reason
    assert "\n" not in reason


def test_the_cpu_says_why_it_has_no_peak():
    peak = Cpu().peak_memory()
    assert peak.allocated is None
    assert peak.reason
    assert peak.reserved is None
    assert peak.reserved_reason


def test_a_backend_without_counters_can_still_be_measured(without_counters):
    without_counters(NotImplementedError("not on this backend"))
    with measured_memory(GPU) as peaks:
        pass
    assert peaks[0].allocated is None
    assert GPU.total_memory is None


def test_the_total_memory_is_not_the_free_memory(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda _: (10, 80), raising=False)
    assert GPU.total_memory == 80


def test_memory_is_measured_from_a_reset_to_the_end_of_the_block(calls):
    with measured_memory(GPU) as peaks:
        calls.append(("the block",))
        assert peaks == []
    assert peaks == [PeakMemory(4096, reserved=8192)]
    assert calls == [
        ("empty_cache",),
        ("reset_peak_memory_stats", GPU.torch_device),
        ("the block",),
        ("synchronize", GPU.torch_device),
        ("max_memory_allocated", GPU.torch_device),
        ("max_memory_reserved", GPU.torch_device),
    ]


def test_the_name_of_a_device_is_its_own_or_machine_and_type(monkeypatch):
    monkeypatch.setattr(torch, "get_device_module", lambda _: SimpleNamespace(get_device_name=str))
    assert GPU.name == "cuda:1"
    monkeypatch.setattr(torch, "get_device_module", lambda _: SimpleNamespace())
    assert GPU.name.endswith(" cuda")


def test_the_clock_starts_and_stops_when_the_device_is_done(monkeypatch):
    events: list[str] = []
    device = fake(synchronize=lambda: events.append("synchronize"))
    readings = iter([10.0, 12.5])

    def read():
        events.append("read the time")
        return next(readings)

    monkeypatch.setattr(devices, "time", SimpleNamespace(perf_counter=read))
    began = clock(device)
    events.append("work")
    assert clock(device) - began == 2.5
    assert events == ["synchronize", "read the time", "work", "synchronize", "read the time"]


def test_the_clock_of_an_accelerator_waits_for_that_accelerator(calls):
    clock(GPU)
    assert calls == [("synchronize", GPU.torch_device)]


def test_nothing_is_left_over_when_a_sound_clock_stops(simulated):
    device = simulated(waits=True)
    assert clock_leftover(device) == 0
    check_clock(device)


def test_most_work_is_left_over_when_a_clock_does_not_wait(simulated):
    assert clock_leftover(simulated(waits=False)) > 0.9


def test_a_clock_that_does_not_wait_is_refused(simulated):
    sentence = refused(check_clock, simulated(waits=False))
    assert "does not wait for cuda" in sentence
    assert "cannot be trusted" in sentence


def test_one_disturbed_reading_does_not_fail_a_sound_clock(monkeypatch):
    leftovers = iter([0.9, 0.01, 0.9])
    monkeypatch.setattr(devices, "clock_leftover", lambda _: next(leftovers))
    check_clock(fake())


@pytest.mark.parametrize(("leftover", "sound"), [(0.0, True), (0.2, True), (0.21, False), (0.9, False)])
def test_a_clock_may_leave_a_fifth_of_the_work(monkeypatch, leftover, sound):
    monkeypatch.setattr(devices, "clock_leftover", lambda _: leftover)
    if sound:
        check_clock(fake())
    else:
        assert f"{leftover:.0%} of the work" in refused(check_clock, fake())


def test_the_clock_of_this_machine_s_cpu_is_sound():
    assert clock_leftover(Cpu(), seconds=0.001) < 0.2
    check_clock(Cpu())
