"""Faults of the catalogue make cases of the suite fail, which pass without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench.calls import sampling
from bench.faults.catalogue import FAULTS
from bench.pictures.check import judge
from bench.pictures.store import describe_origin
from bench.run import Run
from bench.suite.case import Case
from bench.verdicts import Verdict

DPM = "emoji-sd/dpmpp-2m-s20-g7.5-fp32"
KARRAS = "emoji-sd/dpmpp-2m-karras-s20-g7.5-fp32"
EULER = "emoji-sd/euler-s20-g7.5-fp32"
DDIM = "emoji-sd/ddim-s20-g7.5-fp32"
PNDM = "emoji-sd/pndm-s5-g7.5-fp32"
PIXELS = "emoji-ddpm/ddpm-trailing-s15-fp32"
PIXELS_DDIM = "emoji-ddpm/ddim-s20-fp32"


# The case that must fail with each fault. ``python -m bench.faults`` checks that all faults are detected.
SHOWN_BY = (
    ("dpmpp-final-sigma", DPM),
    ("dpmpp-final-sigma", KARRAS),
    ("karras-sigmas-lost", KARRAS),
    ("betas-linear", DDIM),
    ("steps-offset-ddim", DDIM),
    ("latents-clipped", DDIM),
    ("noise-taken-for-velocity", DDIM),
    ("trailing-timesteps", DDIM),
    ("euler-input-unscaled", EULER),
    ("red-and-blue-swapped", PNDM),
    ("one-level-brighter", PNDM),
    ("range-taken-wrongly", PIXELS_DDIM),
    ("seed-plus-one", PNDM),
    ("one-generator-for-all", PIXELS),
    ("last-image-of-another-seed", PIXELS_DDIM),
    ("guidance-stronger", PNDM),
    ("pixels-not-clipped", PIXELS),
)


@pytest.fixture(scope="module")
def run(bench_session: Any) -> Iterator[Run]:
    yield bench_session.run
    bench_session.run.release()


def verdict(run: Run, case: Case) -> str:
    loaded = run.pipeline(case)
    origin = describe_origin(case, loaded.weights, loaded.revision, run.device, run.environment["libraries"])
    return judge(case, sampling.generate(loaded, case), origin, run.goldens.root, run.device)[0].verdict


def find_case(bench_session: Any, case_id: str) -> Case:
    return next(case for case in bench_session.suite.cases if case.id == case_id)


@pytest.mark.parametrize(("name", "case_id"), SHOWN_BY)
def test_a_fault_makes_its_case_fail(
    name: str, case_id: str, bench_session: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[name].apply(monkeypatch)
    assert verdict(run, find_case(bench_session, case_id)) == "changed"


@pytest.mark.parametrize("case_id", sorted({case_id for _, case_id in SHOWN_BY}))
def test_without_a_fault_the_same_cases_pass(case_id: str, bench_session: Any, run: Run) -> None:
    assert Verdict(verdict(run, find_case(bench_session, case_id))).passes
