"""Process pairs: what one gives, when they end, and who is named when a side breaks."""

from __future__ import annotations

import os
import random
import signal
from typing import Any

import pytest

from bench.suite.schedulers import DDPM
from bench.upgrade import pairs
from bench.upgrade.decision import FEWEST_PAIRS
from bench.upgrade.lockstep import ALTERNATE, DUET, PairedCall, Places, paired_call
from bench.upgrade.pairs import Plan, Samples, measure_pair, measure_until_decided
from bench.upgrade.workers import SIDES, Sides, WorkerBroken
from tests.upgrade.helpers import PLAN, TAKING_TURNS, descendants


def test_one_pair_gives_all_samples(sides, request_of):
    samples = Samples()
    measure_pair(sides, (request_of(DDPM), request_of(DDPM)), PLAN, samples, random.Random(0))
    assert [len(calls) for calls in samples.calls] == [1]
    assert len(samples.log_ratios) == 1
    pairs = [*samples.load_s, *samples.first_call_s, *samples.peak_bytes]
    assert len(pairs) == 3
    assert all(value and value > 0 for pair in pairs for value in pair)
    assert samples.unrepeatable == ()
    assert all(descendants(side) == [] for side in sides)


def test_the_budget_ends_the_measurement_after_a_pair(lasting_sides, request_of):
    lines: list[str] = []
    request = request_of(DDPM)
    samples = measure_until_decided(lasting_sides, (request, request), PLAN, announce=lines.append)
    assert len(samples.calls) == len(lines) == 1
    assert lines[0].startswith("pair 1: ")
    assert samples.seconds > 0


class NoSides:
    def take(self) -> tuple[()]:
        return ()


def measured(monkeypatch: pytest.MonkeyPatch, ratios: list[float], **plan: Any) -> Samples:
    """Of pairs with these ratios, 10 s each by the clock of the comparison."""
    now, rest = [0.0], iter(ratios)

    def pair(_sides: Any, _requests: Any, _plan: Plan, samples: Samples, _rng: Any) -> None:
        now[0] += 10
        samples.calls.append([PairedCall([1.0], [next(rest)], ("", ""))])

    monkeypatch.setattr(pairs, "measure_pair", pair)
    monkeypatch.setattr(pairs.time, "perf_counter", lambda: now[0])
    sides: Any = NoSides()
    return measure_until_decided(sides, ({}, {}), Plan(TAKING_TURNS, **plan))


def test_measuring_goes_on_until_it_is_decided(monkeypatch):
    assert len(measured(monkeypatch, [1.0] * 9, budget_s=1000).calls) == FEWEST_PAIRS
    wide = [0.9, 1.1] * 50
    assert len(measured(monkeypatch, wide, budget_s=10**6, min_change=0.1).calls) > FEWEST_PAIRS


@pytest.mark.parametrize(("budget_s", "pairs"), [(0, 1), (19, 1), (20, 2), (39, 3), (75, 7)])
def test_no_pair_is_begun_that_would_end_after_the_budget(monkeypatch, budget_s, pairs):
    samples = measured(monkeypatch, [0.5, 2.0] * 20, budget_s=budget_s)
    assert len(samples.calls) == pairs
    assert samples.seconds == 10 * pairs


STUBBED_LOADING = """
import sys
from types import ModuleType, SimpleNamespace

def stub(name, **contents):
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(contents)

def load(model, folder, *_):
    if folder.name == "broken":
        raise OSError("no such checkpoint")
    return SimpleNamespace(load_s=0.1)

stub("bench.calls.device", choose_device=str)
stub("bench.calls.pipelines", Checkpoint=lambda folder, *_: folder, load_checkpoint=load)
set_num_threads = int
"""


@pytest.mark.parametrize("mode", [DUET, ALTERNATE])
@pytest.mark.parametrize("broken", [0, 1])
def test_a_side_that_cannot_load_is_named(broken, mode, fake_python, request_of):
    requests = [request_of(DDPM), request_of(DDPM)]
    requests[broken]["folder"] = "broken"
    plan, samples = Plan(Places(mode, ((), ()), 1)), Samples()
    with Sides(dict.fromkeys(SIDES, fake_python(torch=STUBBED_LOADING)), 20) as sides:
        for seed in (1, 2):  # one of which asks the candidate first
            with pytest.raises(WorkerBroken, match=r"^OSError: no such checkpoint") as caught:
                measure_pair(sides.take(), requests, plan, samples, random.Random(seed))
            assert (caught.value.side, caught.value.alive) == (SIDES[broken], True)
    assert samples == Samples()


def test_a_side_whose_call_raises_is_named_without_samples(lasting_sides, request_of):
    requests = [request_of(DDPM), request_of(DDPM)]
    requests[1]["settings"]["steps"] = 5000  # of 1000
    samples = Samples()
    with pytest.raises(WorkerBroken, match=r"^ValueError") as caught:
        measure_pair(lasting_sides.take(), requests, PLAN, samples, random.Random(0))
    assert caught.value.side == "candidate"
    assert samples == Samples()


def test_a_side_killed_in_lockstep_is_named(lasting_sides, request_of, monkeypatch):
    def killing(sides: Any, *arguments: Any, **more: Any) -> PairedCall:
        os.kill(descendants(sides[1])[0], signal.SIGKILL)
        return paired_call(sides, *arguments, **more)

    monkeypatch.setattr(pairs, "paired_call", killing)
    with pytest.raises(WorkerBroken, match=r"^its process was killed by SIGKILL") as caught:
        measure_pair(lasting_sides.take(), (request_of(DDPM),) * 2, PLAN, Samples(), random.Random(0))
    assert caught.value.side == "candidate"
