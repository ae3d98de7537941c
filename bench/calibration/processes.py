"""Starts the process of a variation and hands on its answers, whatever happens to it."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.calibration.messages import Answer, Died, NotHeld, Ready, Task
from bench.calibration.variations import Variation
from bench.errors import BenchError
from bench.suite.case import Case
from bench.upgrade.workers import describe_exit, last_words

ROOT = Path(__file__).parents[2]


class VariationFailed(BenchError):
    """A variation cannot be run at all."""


def run_variation(variation: Variation, task: Task) -> Iterator[tuple[Case, Answer]]:
    """An answer for each case of the task, in order, as they come.

    Where a case takes the process along, the others get a new one.

    Raises:
        NoEffectHere: the variation does not take hold on this machine.
        VariationFailed: its process does not come up.
    """
    left = list(task.cases)
    while left:
        for answer in _process(variation, replace(task, cases=tuple(left))):
            yield left.pop(0), answer


class NoEffectHere(BenchError):
    """The variation does not take hold on this machine."""


def _process(variation: Variation, task: Task) -> Iterator[Answer]:
    """The answers of one process; the last is ``Died`` if it ended too early."""
    with tempfile.TemporaryDirectory(prefix="variation-") as folder:
        log = Path(folder) / "log"
        with _started(variation, log, Path(folder) / "inductor") as process:
            assert process.stdin
            assert process.stdout
            with contextlib.suppress(BrokenPipeError):
                pickle.dump(task, process.stdin)
                process.stdin.close()
            expected: list[Case | None] = [None, *task.cases]
            for case in expected:
                try:
                    answer = pickle.load(process.stdout)
                except (EOFError, pickle.UnpicklingError):
                    ended = _ending(process, log)
                    if case is None:
                        raise VariationFailed(f"its process {ended}") from None
                    yield Died(f"its process {ended}")
                    return
                if case is not None:
                    yield answer
                elif isinstance(answer, NotHeld):
                    raise NoEffectHere(answer.reason)
                else:
                    assert isinstance(answer, Ready)


@contextlib.contextmanager
def _started(variation: Variation, log: Path, cache: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process; killed at the end of the block if it has not ended."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    with log.open("wb") as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.calibration.worker"],
            env=os.environ | own | dict(variation.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


def _ending(process: subprocess.Popen[bytes], log: Path) -> str:
    try:
        status = process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        return "closed its output"
    words = last_words(log)
    return describe_exit(status) + (f"; its last words: {words}" if words else "")
