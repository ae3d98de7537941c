"""Runs the cases of the suite with one fault after another, each fault in its own process.

The parent imports the libraries once and forks a child for each fault, so a fault ends with its process. A fresh
interpreter would take longer to import the libraries than to run the quick cases. The parent computes nothing and
starts no threads, so forking is safe.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from bench.calls.processes import Child, ProcessDied, started
from bench.faults.fault import Fault
from bench.faults.outcomes import CLOSED_FORM, CONTROL, CaseOutcome, FaultOutcome, died, judge, raised
from bench.suite.case import Case

# Stops a fault that makes a step loop forever.
LONGEST_S = 1800


@dataclass(frozen=True)
class FaultTrial:
    """What a child has to do.

    Attributes:
        fault: ``None`` for the control.
        environment: the environment of the run, from ``describe_environment``.
        enough: stop after this many cases have detected the fault; ``None`` runs all.
        closed_form: also check the schedulers in closed form if no case detects the fault.
    """

    fault: Fault | None
    cases: tuple[Case, ...]
    suite: str
    suite_folder: Path
    goldens: Path
    environment: dict[str, Any]
    enough: int | None = None
    closed_form: bool = False

    def is_done(self, found: Sequence[CaseOutcome]) -> bool:
        """Whether these outcomes are enough."""
        seen = sum(not one.passed for one in found)
        if self.enough is not None and seen >= self.enough:
            return True
        return len(found) >= len(self.cases) + (self.closed_form and not seen)

    def dies_at(self, found: Sequence[CaseOutcome]) -> str:
        """What was running when the child died after these outcomes."""
        return self.cases[len(found)].id if len(found) < len(self.cases) else CLOSED_FORM

    @property
    def name(self) -> str:
        return self.fault.name if self.fault else CONTROL


def import_libraries() -> None:
    """Imports what every child would import again, since diffusers loads its parts only when they are used."""
    import diffusers
    import transformers
    from diffusers.pipelines.stable_diffusion import safety_checker  # noqa: F401

    for name in ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"):
        getattr(diffusers, name)
    for name in ("CLIPTextModel", "CLIPTokenizer", "CLIPImageProcessor"):
        getattr(transformers, name)


def run_cases(trial: FaultTrial) -> Iterator[CaseOutcome]:
    """Puts the fault in, then loads the pipelines and runs the cases one by one."""
    found: list[CaseOutcome] = []
    import pytest

    from bench.calls.device import Cpu
    from bench.faults.closed_form import check_schedulers
    from bench.record.folder import RunFolder
    from bench.run import GoldenPolicy, Run

    with tempfile.TemporaryDirectory(prefix="fault-") as folder, pytest.MonkeyPatch.context() as patch:
        run = Run(
            device=Cpu(),
            folder=RunFolder(Path(folder), "run"),
            goldens=GoldenPolicy(trial.goldens),
            suite_folder=trial.suite_folder,
            environment=trial.environment,
            announce=lambda _line: None,
        )
        if trial.fault:
            trial.fault.apply(patch)
        for case in trial.cases:
            began = time.perf_counter()
            try:
                record = run.picture(case)
            except Exception as error:
                found.append(raised(case.id, error, time.perf_counter() - began))
            else:
                found.append(judge(record, time.perf_counter() - began))
            yield found[-1]
            if trial.is_done(found):
                return
        if trial.closed_form:
            yield check_schedulers()


def _in_a_child(trial: FaultTrial) -> Iterator[CaseOutcome]:
    """``run_cases``, set up for a child process."""
    import torch

    from bench.calls.device import make_deterministic

    signal.alarm(LONGEST_S)
    torch.set_num_threads(1)
    make_deterministic()
    yield from run_cases(trial)


@dataclass
class _Running:
    """A running child.

    Attributes:
        found: the outcomes that it has sent so far.
        until_end: closed when the child ends.
    """

    trial: FaultTrial
    child: Child[CaseOutcome]
    until_end: contextlib.ExitStack
    began: float = field(default_factory=time.perf_counter)
    found: list[CaseOutcome] = field(default_factory=list)

    def take(self) -> FaultOutcome | None:
        """Receives one more outcome; after the last, or after the child's death, returns all of them."""
        try:
            self.found.append(next(self.child))
            return None
        except StopIteration:
            pass
        except ProcessDied as error:
            if not self.trial.is_done(self.found):
                self.found.append(died(self.trial.dies_at(self.found), str(error)))
        self.until_end.close()
        return FaultOutcome(self.trial.name, self.trial.suite, time.perf_counter() - self.began, tuple(self.found))


def _start(trial: FaultTrial, all_children: contextlib.ExitStack) -> _Running:
    until_end = all_children.enter_context(contextlib.ExitStack())
    return _Running(trial, until_end.enter_context(started(_in_a_child, trial, method="fork")), until_end)


def run_trials(trials: Sequence[FaultTrial], processes: int, done: Callable[[FaultOutcome], None]) -> None:
    """Runs the trials, ``processes`` at a time, and calls ``done`` with each outcome as soon as it is complete."""
    waiting, running = list(trials), dict[Any, _Running]()
    with contextlib.ExitStack() as all_children:
        while waiting or running:
            while waiting and len(running) < processes:
                one = _start(waiting.pop(0), all_children)
                running[one.child.receiver] = one
            for receiver in wait(list(running)):
                outcome = running[receiver].take()
                if outcome:
                    del running[receiver]
                    done(outcome)
