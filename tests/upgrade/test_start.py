"""One start of both sides: what it measures, and what a case that fails costs."""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.upgrade import start
from bench.upgrade.lockstep import ALTERNATE, DUET, Places, paired_call
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.start import measure_start, pipeline_of
from bench.upgrade.workers import SIDES, Sides
from tests.upgrade.helpers import PLAN, TAKING_TURNS, descendants


@pytest.fixture
def measure(lasting_sides, request_of, tiny_case):
    """``measure(settings, …)`` is a start with a tiny DDPM case for each of these settings."""

    def run(*settings: dict[str, Any], requests: dict[str, Any] | None = None, **more: Any) -> start.Start:
        cases = [tiny_case(DDPM, **one) for one in settings]
        asked = {case.id: (request_of(DDPM, **one),) * 2 for case, one in zip(cases, settings, strict=True)}
        return measure_start(lasting_sides, cases, asked | (requests or {}), PLAN, random.Random(0), **more)

    return run


def test_a_start_measures_everything_of_both_sides(measure, lasting_sides):
    found = measure({}, {"steps": 3})
    (pipeline,) = found.pipelines
    assert {case.rpartition("/")[2] for case in pipeline.calls} == {"ddpm-s4-fp32", "ddpm-s3-fp32"}
    assert all(len(calls) == 1 for calls in pipeline.calls.values())
    pairs = [found.import_s, pipeline.load_s, pipeline.first_call_s, pipeline.peak_bytes]
    pairs += [call.seconds for calls in pipeline.calls.values() for call in calls]
    assert all(value and value > 0 for pair in pairs for value in pair)
    assert found.failed == {}
    assert found.seconds > 0
    assert all(descendants(side) == [] for side in lasting_sides.take())


def test_a_spell_repeats_its_cases(lasting_sides, request_of, tiny_case):
    cases = [tiny_case(DDPM, steps=steps) for steps in (2, 3)]
    requests = {case.id: (request_of(DDPM, steps=case.settings.steps),) * 2 for case in cases}
    plan = ComparisonPlan(TAKING_TURNS, spell_s=0.5)
    found = measure_start(lasting_sides, cases, requests, plan, random.Random(0))
    counts = [len(calls) for calls in found.pipelines[0].calls.values()]
    assert min(counts) > 1


def test_of_a_case_that_is_only_loaded_there_are_no_calls(lasting_sides, request_of, tiny_case):
    called, loaded = tiny_case(DDPM), tiny_case(DDPM, optimizations=("channels-last",))
    requests = {
        called.id: (request_of(DDPM),) * 2,
        loaded.id: (request_of(DDPM, optimizations=("channels-last",)),) * 2,
    }
    found = measure_start(lasting_sides, [called], requests, PLAN, random.Random(0), loads=[loaded])
    by_name = {one.pipeline: one for one in found.pipelines}
    assert list(found.calls) == [called.id]
    only_loaded = by_name[pipeline_of(loaded)]
    assert only_loaded.calls == {}
    assert only_loaded.peak_bytes == (None, None)  # of another program than that of a start with calls
    assert min(*only_loaded.load_s, *only_loaded.first_call_s) > 0


@pytest.mark.parametrize("noisy", [0, 1])
def test_the_case_that_is_known_least_is_called_again(noisy, monkeypatch, lasting_sides, request_of, tiny_case):
    cases = [tiny_case(DDPM, steps=steps) for steps in (2, 3)]
    requests = {case.id: (request_of(DDPM, steps=case.settings.steps),) * 2 for case in cases}
    lengths = {2 * case.settings.steps + 1: 1.0 if case is cases[noisy] else 0.5 for case in cases}
    monkeypatch.setattr(start, "standard_error", lambda calls: lengths[len(calls[0].baseline)])
    plan = ComparisonPlan(TAKING_TURNS, spell_s=0.2)
    found = measure_start(lasting_sides, cases, requests, plan, random.Random(0))
    counts = {case: len(calls) for case, calls in found.calls.items()}
    assert counts[cases[1 - noisy].id] == 1
    assert counts[cases[noisy].id] > 2


@pytest.mark.parametrize(("precise", "spells"), [(True, 1), (False, start.MOST_SPELLS)])
def test_a_spell_lasts_longer_where_ratios_are_noisy(
    *, precise, spells, monkeypatch, lasting_sides, request_of, tiny_case
):
    clock = itertools.count()
    monkeypatch.setattr(start, "time", SimpleNamespace(perf_counter=lambda: next(clock) / 1000))
    monkeypatch.setattr(start, "standard_error", lambda calls: 0.009 if precise else 0.011)
    case = tiny_case(DDPM, steps=2)
    plan = ComparisonPlan(TAKING_TURNS, spell_s=0.01, min_change=0.03)
    found = measure_start(lasting_sides, [case], {case.id: (request_of(DDPM, steps=2),) * 2}, plan, random.Random(0))
    first, last = 10 * spells / 3, 10 * spells + 1  # the clock is read up to three times a call
    assert first <= len(found.pipelines[0].calls[case.id]) <= last


def test_the_standard_error_of_a_spell_is_that_of_its_denoiser():
    rng = np.random.default_rng(0)
    logs = rng.normal(0.2, 0.06, 900)
    calls = [
        start.PairedCall(
            baseline=(("rest", 9.0), *(("denoiser", 1.0) for _ in of_call)),
            candidate=(("rest", 1.0), *(("denoiser", math.exp(log)) for log in of_call)),
        )
        for of_call in np.split(logs, 100)
    ]
    assert start.standard_error(calls) == pytest.approx(0.002, rel=0.1)
    assert start.standard_error([]) == 0.0


def test_every_start_has_new_first_processes(fake_python):
    with Sides(dict.fromkeys(SIDES, fake_python()), 20) as sides:
        seen = [worker.process.pid for worker in sides.take()]
        for _ in range(2):
            found = measure_start(sides, [], {}, PLAN, random.Random(0))
            assert min(found.import_s) > 0
            seen += [worker.process.pid for worker in sides.take()]
    assert len(set(seen)) == 6


@pytest.mark.parametrize(
    ("mode", "candidate", "optimizations", "by_block"),
    [
        (DUET, "unet.a", (), True),
        (ALTERNATE, "unet.a", (), False),
        (DUET, "unet.b", (), False),
        (DUET, "unet.a", ("compile",), False),
    ],
)
def test_sides_change_places_within_calls_if_their_blocks_are_the_same(
    *, mode, candidate, optimizations, by_block, monkeypatch, lasting_sides, request_of, tiny_case
):
    asked: list[bool] = []

    def replies(*_: Any, **__: Any) -> list[Any]:
        blocks = [["unet.a"], [candidate]]
        return [({"load_s": 1.0, "blocks": one, "call_s": 1.0, "peak_bytes": 1}, ()) for one in blocks]

    def call(*_: Any, by_block: bool, **__: Any) -> Any:
        asked.append(by_block)
        return start.PairedCall(baseline=(), candidate=()), ((), ())

    monkeypatch.setattr(start, "ask_both", replies)
    monkeypatch.setattr(start, "paired_call", call)
    case = tiny_case(DDPM, optimizations=optimizations)
    plan = ComparisonPlan(Places(mode, ((), ()), 1), spell_s=0.0)
    measure_start(lasting_sides, [case], {case.id: (request_of(DDPM),) * 2}, plan, random.Random(0))
    assert asked == [by_block]


def test_without_forks_the_first_processes_stay_and_importing_is_not_measuring(fake_python, request_of, tiny_case):
    slow_import = "import time\ntime.sleep(0.5)\n"
    case = tiny_case(DDPM)
    python = fake_python(torch=STUBBED_LOADING, diffusers=slow_import)
    with Sides(dict.fromkeys(SIDES, python), 20, forks=False) as sides:
        first = [worker.process.pid for worker in sides.take()]
        request = request_of(DDPM) | {"folder": "broken"}
        found = measure_start(sides, [case], {case.id: (request, request)}, PLAN, random.Random(0))
        assert [worker.process.pid for worker in sides.take()] == first
    assert min(found.import_s) > 0.5 > found.seconds > 0


def test_cases_of_one_pipeline_share_it(tiny_case):
    plain = tiny_case(STABLE_DIFFUSION)
    assert pipeline_of(plain) == "tiny-sd in float32" == pipeline_of(tiny_case(STABLE_DIFFUSION, steps=9))
    assert pipeline_of(tiny_case(STABLE_DIFFUSION, dtype="bfloat16")) == "tiny-sd in bfloat16"
    sliced = tiny_case(STABLE_DIFFUSION, optimizations=("attention-slicing",))
    assert pipeline_of(sliced) == "tiny-sd in float32 with attention-slicing"


def test_outputs_other_than_known_are_reported_with_their_images(measure):
    odd: dict[str, Any] = {}
    (pipeline,) = measure({}).pipelines
    (case,) = pipeline.calls
    checksum = pipeline.calls[case][0].checksums[0]
    measure({}, known={case: (checksum, checksum)}, odd=odd.__setitem__)
    assert odd == {}
    measure({}, known={case: (checksum, "other")}, odd=odd.__setitem__)
    assert [len(images) for images in odd[case]] == [0, 2]


@pytest.mark.parametrize("number", [0, 1])
def test_a_case_that_raises_on_a_side_is_left_out_and_that_side_named(number, measure, request_of, tiny_case):
    bad = [request_of(DDPM, steps=3), request_of(DDPM, steps=3)]
    bad[number]["settings"]["steps"] = 5000  # of 1000
    case = tiny_case(DDPM, steps=3).id
    found = measure({}, {"steps": 3}, requests={case: tuple(bad)})
    (side, reason) = found.failed[case]
    assert side == SIDES[number]
    assert reason.startswith("ValueError")
    assert list(found.pipelines[0].calls) == [tiny_case(DDPM).id]


def test_a_side_killed_in_lockstep_is_named(measure, monkeypatch, tiny_case):
    def killing(sides: Any, *arguments: Any, **more: Any) -> Any:
        os.kill(descendants(sides[1])[0], signal.SIGKILL)
        return paired_call(sides, *arguments, **more)

    monkeypatch.setattr(start, "paired_call", killing)
    found = measure({})
    ((side, reason),) = found.failed.values()
    assert side == "candidate"
    assert reason.startswith("its process was killed by SIGKILL")
    assert found.pipelines == ()


STUBBED_LOADING = """
import sys
from types import ModuleType, SimpleNamespace

def stub(name, **contents):
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(contents)

def load(model, folder, *_):
    if folder.name == "broken":
        raise OSError("no such checkpoint")
    return SimpleNamespace(load_s=0.1, pipeline=SimpleNamespace(components={}))

stub("bench.calls.device", choose_device=str)
stub("bench.calls.pipelines", Checkpoint=lambda folder, *_: folder, load_checkpoint=load)
set_num_threads = int
"""


@pytest.mark.parametrize("mode", [DUET, ALTERNATE])
@pytest.mark.parametrize("broken", [0, 1])
def test_a_side_that_cannot_load_is_named(broken, mode, fake_python, request_of, tiny_case):
    case = tiny_case(DDPM)
    requests = [request_of(DDPM), request_of(DDPM)]
    requests[broken]["folder"] = "broken"
    plan = ComparisonPlan(Places(mode, ((), ()), 1), spell_s=0.0)
    with Sides(dict.fromkeys(SIDES, fake_python(torch=STUBBED_LOADING)), 20) as sides:
        found = measure_start(sides, [case], {case.id: requests}, plan, random.Random(1))
    assert found.failed == {case.id: (SIDES[broken], "OSError: no such checkpoint")}


def test_compiled_cases_get_an_empty_cache_of_their_own_on_each_side(monkeypatch, lasting_sides, request_of, tiny_case):
    asked: list[dict[str, Any]] = []

    def note(_sides: Any, _places: Any, _swapped: bool, do: str, requests: Any = ({}, {})) -> list[Any]:
        asked.extend(request for request in requests if do == "load")
        return [({"load_s": 1.0, "blocks": [], "call_s": 1.0, "peak_bytes": 1}, ())] * 2

    case = tiny_case(DDPM, optimizations=("compile",))
    monkeypatch.setattr(start, "ask_both", note)
    monkeypatch.setattr(start, "paired_call", lambda *_, **__: (start.PairedCall(baseline=(), candidate=()), ((), ())))
    requests = {case.id: (request_of(DDPM, optimizations=("compile",)),) * 2}
    for _ in range(2):
        measure_start(lasting_sides, [case], requests, PLAN, random.Random(0))
    folders = [request["compile_cache"] for request in asked]
    assert len(set(folders)) == 4
    assert not any(map(os.path.exists, folders))
