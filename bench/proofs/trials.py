"""The trials of the power proof: which there are, and the file that they are kept in."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from bench.calls.observe import BETWEEN, DECODER, DENOISER, ENCODER
from bench.console import shown
from bench.errors import UsageError
from bench.files import append_line, read_each
from bench.frozen import Frozen
from bench.proofs.slow_down import SCHEDULER
from bench.suite.case import Case
from bench.suite.schedulers import SCHEDULERS, STABLE_DIFFUSION
from bench.upgrade.components import Component, Samples
from bench.upgrade.lockstep import PairedCall, Places
from bench.upgrade.plan import SPELL_S, ComparisonPlan
from bench.upgrade.start import Start

# A run of several pipelines whose calls are short; the first one is the case that is slowed down.
CASES = (
    "emoji-sd/pndm-s5-g7.5-fp32",
    "emoji-sd/ddpm-linspace-s7-g7.5-fp32",
    "emoji-sd/ddpm-trailing-s7-g7.5-fp32",
    "emoji-sd/dpmpp-2m-lu-s7-g7.5-fp32",
    "emoji-sd/dpmpp-2m-exponential-s7-g7.5-fp32",
    "emoji-sd/dpmpp-2m-beta-s7-g7.5-fp32",
    "emoji-sd/dpmpp-3m-sde-s7-g7.5-fp32",
    "emoji-sd/ddim-s20-g7.5-fp32",
    "emoji-sd/pndm-s5-g7.5-bf16-seed4",
    "emoji-ddpm/ddpm-linspace-s15-fp32",
    "emoji-ddpm/ddpm-trailing-s15-fp32",
    "emoji-ddpm/ddim-s20-fp32",
)
WHOLE, SLOW, ONE_SCHEDULER = "whole", "slow", "scheduler"
KINDS = (WHOLE, SLOW, ONE_SCHEDULER)
# How many of each there are in a round.
PER_ROUND: Mapping[str, int] = {WHOLE: 4, SLOW: 1, ONE_SCHEDULER: 2}
SLOW_DOWNS = (0.03, 0.05, 0.10)
# Calls per start: one, or as many as the check makes.
SPELLS_S = (0.0, SPELL_S)
# Two of the cases use it.
SLOW_SCHEDULER, SLOW_DOWN_OF_SCHEDULER = "DDIMScheduler", 0.05
# The part that the check names; a scheduler's work is between the calls of the denoiser.
NAMED = {ENCODER: ENCODER, DENOISER: DENOISER, SCHEDULER: BETWEEN, DECODER: DECODER}


class Fault(Frozen):
    """Extra work in the candidate."""

    part: str = Field(description="encoder, denoiser, scheduler or decoder")
    share: float = Field(description="of the time of a call, 0.05 for 5 %")
    cases: tuple[str, ...] = Field(description="the cases that have it")

    def components(self, samples: Samples) -> set[Component]:
        """The components with the extra work, but for those that other cases share, which have no such work."""
        of_slow = {component for case in self.cases for component in samples.parts.get(case, ())}
        of_others = {component for case in set(samples.parts) - set(self.cases) for component in samples.parts[case]}
        return {component for component in of_slow - of_others if component.part == NAMED[self.part]}


class Setup(Frozen):
    """What a trial measures; trials with the same setup are repetitions."""

    kind: str = Field(
        description="whole: a run of equal sides; slow: one slow case; scheduler: a run with one slow one"
    )
    cases: tuple[str, ...]
    fault: Fault | None = Field(default=None, description="null where the sides are equal")
    spell_s: float = Field(description="seconds of measuring per start and pipeline; 0 for one call of each case")
    budget_s: float
    min_change: float

    @property
    def where(self) -> str:
        """The part and the cases with the extra work, such as ``scheduler of 2 of 12 cases``."""
        if not self.fault:
            return "nowhere"
        count = len(self.cases)
        return f"{self.fault.part} of {'one case' if count == 1 else f'{len(self.fault.cases)} of {count} cases'}"

    @property
    def share(self) -> str:
        """Of a call that the extra work takes."""
        return f"{100 * self.fault.share:g} %" if self.fault else "0 %"

    @property
    def calls(self) -> str:
        """How many calls of each case a start has."""
        return "several" if self.spell_s else "one"

    def __str__(self) -> str:
        what = f"{self.share} more in the {self.where}" if self.fault else f"equal sides, {len(self.cases)} cases"
        return f"{what}, {self.calls} per start"

    def plan(self, places: Places) -> ComparisonPlan:
        return ComparisonPlan(places, spell_s=self.spell_s, budget_s=self.budget_s, min_change=self.min_change)


class Trial(Frozen):
    """The raw data of one decision of the check."""

    setup: Setup
    mode: str = Field(description="duet or alternate")
    seen: dict[str, PairedCall] = Field(default={}, description="the calls that drew the pictures, by case")
    starts: tuple[Start, ...]
    complete: Start | None = Field(
        default=None, description="a start after the run, in which each of several cases is called; to resample from"
    )
    multiplications: dict[str, int] = Field(default={}, description="of each call of the slow part, by case")
    seconds: float = Field(description="of measuring, without importing")
    date: str = Field(description="when it began; ISO 8601")


def all_starts(trial: Trial) -> list[Start]:
    """Those of the run, and the complete one after it."""
    return [*trial.starts, *([trial.complete] if trial.complete else [])]


def setups(cases: Sequence[Case], kinds: Iterable[str], budget_s: float, min_change: float) -> list[Setup]:
    """All trials of a round with these cases, of which the first is the one that is slowed down by itself.

    Raises:
        UsageError: none of the cases fits a kind of trial.
    """
    ids = tuple(case.id for case in cases)

    def setup(kind: str, cases: tuple[str, ...], fault: Fault | None, spell_s: float = SPELL_S) -> Setup:
        return Setup(kind=kind, cases=cases, fault=fault, spell_s=spell_s, budget_s=budget_s, min_change=min_change)

    has_text = cases[0].model.kind == STABLE_DIFFUSION
    parts = (DENOISER, ENCODER, SCHEDULER, DECODER) if has_text else (DENOISER, SCHEDULER)
    slow = tuple(case.id for case in cases if SCHEDULERS[case.settings.scheduler].class_name == SLOW_SCHEDULER)
    of_scheduler = Fault(part=SCHEDULER, share=SLOW_DOWN_OF_SCHEDULER, cases=slow)
    found = {
        WHOLE: [setup(WHOLE, ids, None)],
        SLOW: [
            setup(SLOW, ids[:1], Fault(part=part, share=share, cases=ids[:1]), spell_s)
            for part in parts
            for share in SLOW_DOWNS
            for spell_s in SPELLS_S
        ],
        ONE_SCHEDULER: [setup(ONE_SCHEDULER, ids, of_scheduler)] if slow else [],
    }
    chosen = [one for kind in kinds for one in found[kind]]
    if not chosen:
        raise UsageError(f"--kind {ONE_SCHEDULER}: none of the chosen cases uses {SLOW_SCHEDULER}.")
    return chosen


def next_setup(choices: Sequence[Setup], done: Iterable[Setup], rng: random.Random) -> Setup:
    """The setup that is furthest behind the others; one of them at random where several are."""
    count = Counter(done)
    return min(choices, key=lambda setup: (count[setup] // PER_ROUND[setup.kind], rng.random()))


def keep(file: Path, trial: Trial) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    append_line(file, trial.model_dump_json())


def read_trials(file: Path) -> list[Trial]:
    """
    Raises:
        UsageError: there is no such file, or a line of it is damaged.
    """

    def damaged(number: int, _: ValueError) -> UsageError:
        return UsageError(f"{shown(file)}, line {number}: not a trial; delete the line.")

    try:
        return read_each(file, Trial.model_validate_json, damaged)
    except OSError:
        raise UsageError(f"{shown(file)}: no such file; measure first, with 'run'.") from None
