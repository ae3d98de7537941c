"""Measures a case in a process of its own, with an empty compile cache.

What ``torch.compile`` costs and gives depends on what the process and its cache have compiled before; here that is
always nothing, so the first call is a cold one.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from bench.calls.device import choose_device
from bench.calls.pipelines import LoadedPipeline, load_pipeline
from bench.calls.timing import Measurement, measure
from bench.calls.work import count_work
from bench.suite.case import Case


class ProcessDied(Exception):
    """The process of a case ended without a result; one sentence."""


@dataclass(frozen=True)
class Task:
    """What the new process is told. ``device`` is torch's name, such as ``cuda:0``."""

    case: Case
    device: str
    rounds: int
    suite_folder: Path
    cache: Path
    counts_work: bool


def _measure(task: Task) -> tuple[LoadedPipeline, Measurement]:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(task.cache)
    device = choose_device(task.device)
    settings = task.case.settings
    loaded = load_pipeline(task.case.model, settings.dtype, settings.optimizations, device, task.suite_folder)
    measured = measure(loaded, task.case, device, task.rounds, count=count_work if task.counts_work else None)
    return replace(loaded, pipeline=None, scheduler_config={}), measured


def measure_alone(
    case: Case, device: str, rounds: int, suite_folder: Path, *, counts_work: bool = False
) -> tuple[LoadedPipeline, Measurement]:
    """The measurement of a case made in a new process, and what it loaded (without the pipeline, which ended there).

    Raises:
        ProcessDied: the process was killed, out of memory for one.
    """
    with (
        tempfile.TemporaryDirectory(prefix="inductor-") as cache,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        try:
            task = Task(case, device, rounds, suite_folder, Path(cache), counts_work)
            return pool.submit(_measure, task).result()
        except BrokenProcessPool:
            raise ProcessDied("its process ended without a result (killed, or out of memory).") from None
