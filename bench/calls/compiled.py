"""Measures a case in a separate process, with an empty compile cache.

What ``torch.compile`` costs and gains depends on what the process and its cache have compiled before. Here that is
nothing, so the first call is always cold.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.calls import processes
from bench.calls.device import choose_device
from bench.calls.pipelines import LoadedPipeline, load_pipeline
from bench.calls.timing import Measurement, measure
from bench.calls.work import count_work
from bench.suite.case import Case


def _measure(
    case: Case, device_name: str, rounds: int, suite_folder: Path, counts_work: bool
) -> tuple[LoadedPipeline, Measurement]:
    device, settings = choose_device(device_name), case.settings
    loaded = load_pipeline(case.model, settings.dtype, settings.optimizations, device, suite_folder)
    measured = measure(loaded, case, device, rounds, count=count_work if counts_work else None)
    return replace(loaded, pipeline=None, scheduler_config={}), measured


def measure_alone(
    case: Case, device: str, rounds: int, suite_folder: Path, *, counts_work: bool = False
) -> tuple[LoadedPipeline, Measurement]:
    """Measures a case in a new process; also returns what it loaded, without the pipeline, which ended there.

    Args:
        device: torch's name, such as ``cuda:0``.

    Raises:
        ProcessDied: the process was killed, for example when memory ran out.
    """
    return processes.call(_measure, case, device, rounds, suite_folder, counts_work, shows=True)
