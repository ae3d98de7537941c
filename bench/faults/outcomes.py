"""The results of the suite's cases with a fault, and how far beyond their limits they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.files import append_line, read_each
from bench.record.record import Record
from bench.suite.case import Case
from bench.verdicts import Verdict

CONTROL = "(no fault)"
CLOSED_FORM, WORK = "closed form", "work"
SSIM, DIFFERENCE, SHARE, SHIFT = "SSIM", "largest difference", "changed share", "colour shift"


class OutcomeError(BenchError):
    """A file of outcomes cannot be used."""


@dataclass(frozen=True)
class CaseOutcome:
    """One case with one fault.

    Attributes:
        case: its id, or ``CLOSED_FORM`` for the schedulers in closed form.
        passed: whether the suite would be green.
        by: the measures over their limits, each as a multiple of its limit; ``None`` if it is not a number.
    """

    case: str
    passed: bool
    verdict: str
    seconds: float
    by: dict[str, float | None]
    message: str = ""


@dataclass(frozen=True)
class FaultOutcome:
    """All cases with one fault, or without a fault (``CONTROL``).

    Attributes:
        suite: hash of the cases and libraries, from ``suite_hash``.
    """

    fault: str
    suite: str
    seconds: float
    cases: tuple[CaseOutcome, ...]

    @property
    def seen_by(self) -> tuple[CaseOutcome, ...]:
        return tuple(case for case in self.cases if not case.passed)

    @property
    def seen(self) -> bool:
        return bool(self.seen_by)

    @property
    def measures(self) -> dict[str, float | None]:
        """Every measure that detected the fault, with its largest ratio to the limit."""
        largest: dict[str, float | None] = {}
        for case in self.seen_by:
            for measure, ratio in case.by.items():
                known = largest.get(measure)
                largest[measure] = max(ratio, known) if ratio is not None and known is not None else ratio or known
        return largest

    @property
    def margin(self) -> float | None:
        """The largest ratio of a measure to its limit; ``None`` if no measure with a number detected the fault."""
        ratios = [ratio for ratio in self.measures.values() if ratio is not None]
        return max(ratios) if ratios else None


def suite_hash(cases: Iterable[Case], libraries: dict[str, str | None]) -> str:
    """Identifies what was run: the settings of all cases, and the libraries."""
    digest = hashlib.sha256(json.dumps(libraries, sort_keys=True).encode())
    for case in sorted(cases, key=lambda case: case.id):
        digest.update(f"{case.id} {case.settings.model_dump_json()}\n".encode())
    return digest.hexdigest()[:12]


def ratios(record: Record) -> dict[str, float | None]:
    """The measures of a record that are over their limits, each as a multiple of its limit.

    For SSIM this is the ratio of the distances from 1. With a limit of 0 the ratio is infinite, given as ``None``.
    """
    over: dict[str, float | None] = {}
    pictures = record.pictures
    if pictures and pictures.limits and pictures.ssim_worst_tile is not None:
        limits = pictures.limits
        measured = {
            SSIM: (1 - pictures.ssim_worst_tile, 1 - limits.ssim),
            DIFFERENCE: (pictures.max_diff, limits.max_diff),
            SHARE: (pictures.changed_share, limits.changed_share),
            SHIFT: (max(map(abs, pictures.mean_diff or (0.0,))), limits.mean_diff),
        }
        for measure, (value, limit) in measured.items():
            if value is not None and value > limit:
                over[measure] = value / limit if limit > 0 else None
    if record.work and record.work.verdict == Verdict.MORE_WORK:
        over[WORK] = None
    return over


def judge(record: Record, seconds: float) -> CaseOutcome:
    """The outcome of a case that ran."""
    passed = Verdict(record.verdict).passes
    by = {} if passed else ratios(record) or {record.verdict: None}
    messages = [one.message for one in (record.pictures, record.work if WORK in by else None) if one]
    return CaseOutcome(record.case, passed, record.verdict, seconds, by, "" if passed else "; ".join(messages))


def raised(case: str, error: Exception, seconds: float) -> CaseOutcome:
    first = (str(error).strip() or "no reason given").splitlines()[0]
    verdict = Verdict.RAISES_NOW
    return CaseOutcome(case, False, verdict, seconds, {verdict: None}, f"{type(error).__name__}: {first}")


def died(case: str, how: str) -> CaseOutcome:
    return CaseOutcome(case, False, Verdict.DIED, 0.0, {Verdict.DIED: None}, how)


def to_line(outcome: FaultOutcome) -> str:
    return json.dumps(asdict(outcome)) + "\n"


def from_line(line: str | bytes) -> FaultOutcome:
    """
    Raises:
        ValueError: the line is not an outcome.
    """
    try:
        document: dict[str, Any] = json.loads(line)
        cases = tuple(CaseOutcome(**case) for case in document.pop("cases"))
        return FaultOutcome(**document, cases=cases)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(str(error)) from None


def append(path: Path, outcome: FaultOutcome) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    append_line(path, to_line(outcome))


def read_outcomes(path: Path) -> list[FaultOutcome]:
    """All outcomes in a file, except a last one that a crash cut off.

    Raises:
        OutcomeError: the file does not exist, or one of its lines is damaged.
    """

    def damaged(number: int, error: ValueError) -> OutcomeError:
        return OutcomeError(f"{path}, line {number}: not an outcome ({error}); delete the line.")

    try:
        return read_each(path, from_line, damaged)
    except OSError:
        raise OutcomeError(f"{path}: no such file; start with 'run'.") from None


def latest(outcomes: Sequence[FaultOutcome], suite: str | None = None) -> dict[str, FaultOutcome]:
    """The last outcome of each fault and of the control, by name: of this suite, or of the last one that ran."""
    wanted = suite or (outcomes[-1].suite if outcomes else "")
    return {outcome.fault: outcome for outcome in outcomes if outcome.suite == wanted}
