"""Real worker processes under test: who they are, and whether anything is left of them."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.upgrade.lockstep import ALTERNATE, Places
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.workers import WorkerProcess, fresh

psutil = importlib.import_module("psutil")
KINDS = pytest.mark.parametrize("kind", [STABLE_DIFFUSION, DDPM])
UNET_CALLS = {STABLE_DIFFUSION: 5, DDPM: 4}
CURRENT = Path(sys.executable)
ROOT = Path(__file__).parents[2]
TAKING_TURNS = Places(ALTERNATE, threads=1, move_weights=True)
PLAN = ComparisonPlan(TAKING_TURNS, spell_s=0.0, budget_s=0.0)
Request = Callable[..., dict[str, Any]]
FakePython = Callable[..., Path]
MakePython = Callable[[str], Path]


def descendants(worker: WorkerProcess) -> list[int]:
    return [process.pid for process in psutil.Process(worker.process.pid).children(recursive=True)]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_gone(pids: list[int], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


def ask_after(worker: WorkerProcess, what: Callable[[int], None]) -> None:
    """Asks a fresh child of the worker something after doing this to the child."""
    with fresh(worker) as process:
        what(descendants(worker)[0])
        process.ask("import")


LIBRARY = """
from types import SimpleNamespace
__version__ = "0"
utils = SimpleNamespace(logging=SimpleNamespace(disable_progress_bar=lambda: None))
StableDiffusionPipeline = DDPMPipeline = None
"""
