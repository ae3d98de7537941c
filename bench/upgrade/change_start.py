"""Where a change of pictures starts: in which step, or only in the decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.record.groups import Group, representative
from bench.upgrade.workers import SIDES, WorkerProcess
from bench.verdicts import Verdict

# A difference of so many units in the last place of the largest value is rounding: an operator that adds in another
# order gives it too. Half precision adds in float32, so that less of it remains.
_ROUNDING = {"float32": 32 * 2**-23, "float16": 4 * 2**-10, "bfloat16": 4 * 2**-7}
MOST_GROUPS = 3
_UNKNOWN = "where the change starts is not known"


@dataclass(frozen=True)
class StepsOfSide:
    """One side's call of a case, in float32.

    Attributes:
        start: latents before the first step.
        steps: of each step, what the denoiser predicts and the latents after it.
        has_decoder: whether pictures are decoded from the latents; else the latents are the pictures.
    """

    start: np.ndarray
    steps: tuple[tuple[np.ndarray, np.ndarray], ...]
    has_decoder: bool = True

    @classmethod
    def of_reply(cls, reply: tuple[dict[str, Any], tuple[bytes, ...]]) -> StepsOfSide:
        """Reads a worker's reply to ``latents``."""
        header, blobs = reply
        arrays = [
            np.frombuffer(blob, np.float32).reshape(shape) for blob, shape in zip(blobs, header["shapes"], strict=True)
        ]
        start, others = arrays[0] if arrays else np.zeros(0, np.float32), arrays[1:]
        return cls(start, tuple(zip(others[::2], others[1::2], strict=True)), header["has_decoder"])


def difference(before: np.ndarray, after: np.ndarray) -> float:
    """The largest difference as a share of the largest value; infinite where only one side is a number."""
    if np.array_equal(before, after, equal_nan=True):
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = np.where((before == after) | (np.isnan(before) & np.isnan(after)), 0.0, np.abs(after - before))
    finite = np.abs(before[np.isfinite(before)])
    scale = float(finite.max()) if finite.size else 0.0
    return float(np.nan_to_num(apart, nan=np.inf).max()) / scale if scale else float("inf")


def describe_start(baseline: StepsOfSide, candidate: StepsOfSide, dtype: str) -> str:
    """Says in which step the sides start to differ by more than rounding, and by how much.

    Where they make another number of steps, or their latents have another shape, it says so instead.

    Args:
        dtype: of the case, such as ``float32``; it decides what is rounding.
    """
    counts = [len(side.steps) for side in (baseline, candidate)]
    if counts[0] != counts[1]:
        return f"{_UNKNOWN}: the baseline makes {counts[0]} steps, the candidate {counts[1]}"
    if not counts[0]:
        return f"{_UNKNOWN}: the case makes no steps"
    if baseline.start.shape != candidate.start.shape:
        return f"{_UNKNOWN}: the latents have the shapes {baseline.start.shape} and {candidate.start.shape}"
    rounding = _ROUNDING[dtype]
    apart = difference(baseline.start, candidate.start)
    if apart > rounding:
        return f"the change starts before the first step: the initial latents differ by {_percent(apart)}"
    largest = apart
    for number, (before, after) in enumerate(zip(baseline.steps, candidate.steps, strict=True), start=1):
        predicted, stepped = (difference(*pair) for pair in zip(before, after, strict=True))
        if max(predicted, stepped) > rounding:
            if predicted > rounding:
                what = f"the denoiser's predictions differ by {_percent(predicted)}"
            else:
                what = f"from the same predictions, the scheduler's latents differ by {_percent(stepped)}"
            return f"the change starts in {_step(number, counts[0])}: {what}"
        largest = max(largest, predicted, stepped)
    place = "in the decoder" if baseline.has_decoder else "in the conversion to pictures"
    how = f"differ by rounding alone, {_percent(largest)}" if largest else "are the same"
    return f"the change starts {place}: the latents of all {counts[0]} steps {how}"


def _step(number: int, count: int) -> str:
    if count == 1:
        return "the only step"
    if number in (1, count):
        return f"the {'first' if number == 1 else 'last'} of {count} steps"
    return f"step {number} of {count}"


def _percent(share: float) -> str:
    return "infinitely much" if np.isinf(share) else f"up to {100 * share:.2g} % of the largest value"


def start_in(fresh_process: Callable[[str], AbstractContextManager[WorkerProcess]], request: Mapping[str, Any]) -> str:
    """Calls a case once on each side and says where its change starts, or why that is not known.

    Args:
        fresh_process: gives a fresh process of a side by its name.
        request: see ``load_request``.
    """
    sides = []
    try:
        for side in SIDES:
            with fresh_process(side) as process:
                process.ask("load", **request)
                sides.append(StepsOfSide.of_reply(process.ask("latents")))
    except BenchError as error:
        return f"{_UNKNOWN}: {error}"
    return describe_start(sides[0], sides[1], request["settings"]["dtype"])


def note_starts(
    groups: Sequence[Group], settings: Mapping[str, Mapping[str, Any]], start_of: Callable[[str], str]
) -> tuple[Group, ...]:
    """The groups, of which the first ``MOST_GROUPS`` with changed pictures say where the change of one case starts.

    Args:
        settings: of each case.
        start_of: says where the change of a case starts.
    """
    noted = []
    left = MOST_GROUPS
    for group in groups:
        if left and Verdict.CHANGED in group.verdicts:
            left -= 1
            case = representative((case, settings[case]) for case in group.cases)
            noted.append(group.model_copy(update={"notes": (*group.notes, f"{start_of(case)} ({case})")}))
        else:
            noted.append(group)
    return tuple(noted)
