"""Whether the times of a run may be compared."""

from __future__ import annotations

import pytest

from bench.record.nvml import GpuState
from bench.record.run_info import RunInfo, read_run_info, write_run_info
from bench.record.steadiness import SLOWER, gpu_reasons, why_not_comparable


@pytest.mark.parametrize("canary_s", [(), (1.0,), (1.0, 1.0), (1.0, 0.5), (1.0, SLOWER)])
def test_a_steady_machine_gives_comparable_times(canary_s):
    assert why_not_comparable(canary_s) == ()


def test_a_machine_that_got_slower_does_not():
    (reason,) = why_not_comparable((0.002, 0.003))
    assert reason.startswith(
        "the machine got slower during the run: a fixed matrix product took 2.00 ms before it and 3"
    )
    assert "(+50%, allowed: +15%)" in reason


def test_a_gpu_that_was_held_back_or_shared_does_not():
    hot, sound = GpuState(throttle_reasons=("hardware thermal slowdown", "power cap")), GpuState(throttle_reasons=())
    assert gpu_reasons([sound, hot, sound]) == ["the GPU was held back after 1 of 3 cases (hardware thermal slowdown)"]
    assert gpu_reasons([GpuState(compute_processes=2)]) == ["2 processes used the GPU at the same time"]


def test_a_gpu_that_is_idle_or_at_its_power_limit_alone_gives_comparable_times():
    usual = GpuState(throttle_reasons=("idle", "power cap", "application clocks"), compute_processes=1)
    assert gpu_reasons([usual, GpuState(reason="nvidia-ml-py is not installed")]) == []


def test_other_reasons_count_too():
    assert why_not_comparable((), ["the device was hot"]) == ("the device was hot",)


def test_a_run_keeps_its_canary_and_older_runs_had_none(tmp_path):
    info = RunInfo(schema=1, command="pytest bench", began="now", planned=())
    assert info.times_warning == ""
    write_run_info(tmp_path, info.model_copy(update={"canary_s": (0.1, 0.2), "not_comparable": ("it was hot",)}))
    read = read_run_info(tmp_path)
    assert read
    assert read.canary_s == (0.1, 0.2)
    assert read.times_warning == "The times of this run are not comparable: it was hot."
