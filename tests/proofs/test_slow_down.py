"""The known slow-down: extra work in one part of a pipeline, and nothing else changes."""

from __future__ import annotations

import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.calls.observe import DECODER, DENOISER, ENCODER, REST, watched_parts
from bench.calls.pipelines import Checkpoint
from bench.calls.sampling import generate, new_scheduler, prepare_call
from bench.proofs import slow_down
from bench.proofs.power import SLOW_WORKER
from bench.proofs.slow_down import (
    MULTIPLICATIONS_PER_ROUND,
    SCHEDULER,
    after_calls,
    calls_of_parts,
    multiplications_as_long_as,
    multiplier,
    part_methods,
)
from bench.proofs.trials import NAMED
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.upgrade.lockstep import Segments, paired_call
from bench.upgrade.request import load_request
from bench.upgrade.workers import SIDES, Sides, WorkerBroken, WorkerProcess, fresh, started_worker
from tests.upgrade.helpers import TAKING_TURNS, UNET_CALLS

pytestmark = pytest.mark.usefixtures("one_thread")

CALLS = {
    STABLE_DIFFUSION: {ENCODER: 2, DENOISER: 5, SCHEDULER: 5, DECODER: 1},
    DDPM: {DENOISER: 4, SCHEDULER: 4},
}
EACH_PART = pytest.mark.parametrize(("kind", "part"), [(kind, part) for kind, calls in CALLS.items() for part in calls])
# Longer than any part of a tiny pipeline takes.
MANY = 20_000


@pytest.fixture
def tiny(tiny_case, load_tiny) -> Callable[[str], tuple[Any, Any, Any, Any]]:
    """``tiny(kind)`` is a loaded pipeline of that kind, its case, itself and a scheduler of the case."""

    def make(kind: str) -> tuple[Any, Any, Any, Any]:
        case = tiny_case(kind)
        loaded = load_tiny(case)
        return loaded, case, loaded.pipeline, new_scheduler(loaded, case)

    return make


@EACH_PART
def test_the_extra_work_is_in_the_named_part_and_leaves_the_pictures_alone(kind, part, tiny):
    loaded, case, pipeline, scheduler = tiny(kind)
    plain = [image.tobytes() for image in generate(loaded, case)]
    ticks, spent = [0], Counter[str]()
    current, seen = REST, 0

    def enter(following: str, _shape: Any) -> None:
        nonlocal current, seen
        spent[current] += ticks[0] - seen
        current, seen = following, ticks[0]

    def work() -> None:
        ticks[0] += 1

    with after_calls(pipeline, scheduler, part, work), watched_parts(pipeline, enter):
        assert [image.tobytes() for image in generate(loaded, case)] == plain
    enter("", ())
    assert {name: count for name, count in spent.items() if count} == {NAMED[part]: CALLS[kind][part]}
    generate(loaded, case)
    assert ticks[0] == CALLS[kind][part]


@pytest.mark.parametrize("kind", CALLS)
def test_the_calls_of_each_part_are_counted(kind, tiny):
    loaded, case, pipeline, scheduler = tiny(kind)
    assert CALLS[kind][DENOISER] == UNET_CALLS[kind]
    counts = calls_of_parts(pipeline, scheduler, lambda: pipeline(**prepare_call(loaded, case)))
    assert counts == CALLS[kind]
    assert set(part_methods(pipeline, scheduler)) == set(counts)


def test_a_part_that_a_pipeline_lacks_is_an_error(tiny):
    _, _, pipeline, scheduler = tiny(DDPM)
    with pytest.raises(ValueError, match="has no decoder"):
        after_calls(pipeline, scheduler, DECODER, lambda: None)


def test_the_multiplier_multiplies_as_often_as_asked(monkeypatch):
    counted: list[None] = []
    multiply = multiplier()
    monkeypatch.setattr(np, "matmul", lambda *_args, **_more: counted.append(None))
    multiply(7)
    assert len(counted) == 7


def test_the_middle_round_says_how_many_multiplications_take_as_long_as_a_call(monkeypatch):
    durations = iter([2.0, 0.5, 2.0, 0.5, 90.0, 0.5, 2.0, 90.0, 2.0, 0.5])
    monkeypatch.setattr(slow_down, "_seconds", lambda _do: next(durations))
    assert multiplications_as_long_as(lambda: None) == 4 * MULTIPLICATIONS_PER_ROUND


@pytest.fixture(scope="module")
def sides() -> Iterator[Sides]:
    with Sides(dict.fromkeys(SIDES, Path(sys.executable)), 120, program=SLOW_WORKER) as both:
        yield both


@pytest.fixture
def workers(sides: Sides) -> list[WorkerProcess]:
    """The first processes of both sides, new ones if a test before has ended them."""
    return sides.take()


@pytest.fixture
def plain(tiny_case) -> dict[str, Any]:
    """What a worker needs to load the tiny pipeline with all parts."""
    case = tiny_case(STABLE_DIFFUSION)
    return load_request(case, Checkpoint(Path(case.model.path), None, False), "cpu", 1)


def test_a_worker_is_slow_in_the_part_that_it_is_asked_for_until_the_next_load(workers, plain):
    with fresh(workers[0]) as baseline, fresh(workers[1]) as candidate:
        pair = [baseline, candidate]
        baseline.ask("load", **plain)
        extra_s = []
        for part in (*CALLS[STABLE_DIFFUSION], None):
            slow = {"slow_part": part, "multiplications": MANY} if part else {}
            candidate.ask("load", **plain, **slow)
            for side in pair:
                side.ask("picture")
            calls = [paired_call(pair, TAKING_TURNS, random.Random(0))[0] for _ in range(5)]
            assert all(call.checksums[0] == call.checksums[1] for call in calls)
            # The shortest call of each side was interrupted least.
            before = shortest([call.baseline for call in calls])
            after = shortest([call.candidate for call in calls])
            slowest, more_s = max(
                ((name, after[name] - before[name]) for name in after), key=lambda one: one[1], default=("", 0.0)
            )
            if part:
                assert slowest == NAMED[part]
                assert more_s > MANY * 0.5e-6  # a multiplication takes a microsecond or more
                extra_s.append(more_s)
            else:
                assert more_s < min(extra_s) / 2


def shortest(calls: Sequence[Segments]) -> dict[str, float]:
    """The least that each part took in one of the calls."""
    sums: list[dict[str, float]] = [defaultdict(float) for _ in calls]
    for totals, segments in zip(sums, calls, strict=True):
        for name, seconds in segments:
            totals[name] += seconds
    return {name: min(totals[name] for totals in sums) for name in sums[0]}


def test_a_worker_calibrates(workers, plain):
    with fresh(workers[0]) as process:
        process.ask("load", **plain)
        found, _ = process.ask("calibrate")
    assert found["calls"] == CALLS[STABLE_DIFFUSION]
    assert found["multiplications"] > 0


def test_a_part_that_the_pipeline_of_a_worker_lacks_is_an_error(workers, tiny_case):
    case = tiny_case(DDPM)
    request = load_request(case, Checkpoint(Path(case.model.path), None, False), "cpu", 1)
    with fresh(workers[0]) as process, pytest.raises(WorkerBroken, match="has no encoder"):
        process.ask("load", **request, slow_part=ENCODER, multiplications=1)


def test_without_forks_a_fresh_slow_worker_is_slow_too(plain):
    with (
        started_worker("one", Path(sys.executable), 120, forks=False, program=SLOW_WORKER) as worker,
        fresh(worker) as process,
    ):
        assert process.program == SLOW_WORKER
        process.ask("load", **plain)
        assert process.ask("calibrate")[0]["calls"] == CALLS[STABLE_DIFFUSION]
