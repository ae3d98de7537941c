"""One setting of a tiny pipeline, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.calls import optimizations
from bench.calls.device import Cpu
from bench.calls.optimizations import Knob, NotApplied
from bench.suite.case import Model
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.suite.tuning import Tuning
from bench.tune import trial
from bench.tune.space import Space, space_of
from bench.tune.trial import FEWEST_SAMPLES, Studio

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def space_for(tiny_folders):
    """``space_for(kind, **tuning)`` is a space of the tiny pipeline of that kind."""

    def make(kind: str = STABLE_DIFFUSION, **changes: Any) -> Space:
        model = Model.model_validate({"name": "tiny", "kind": kind, "source": "local", "path": tiny_folders[kind]})
        tuning: dict[str, Any] = {
            "scheduler": ("ddim",),
            "steps": (2, 6),
            "images": 2,
            "seeds": (0, 5),
            "start": {"scheduler": "ddim", "steps": 6},
            "reference": {"scheduler": "ddim", "steps": 8},
        }
        if kind == STABLE_DIFFUSION:
            tuning |= {"guidance": 5.0, "prompts": ("a red fox", "a cat")}
        else:
            tuning |= {"count": 2}
        return space_of(model, Tuning.model_validate(tuning | changes), "cpu")

    return make


def studio(space: Space, **more: Any) -> Studio:
    return Studio(Cpu(), Path(), space, **more)


@pytest.mark.parametrize("kind", [STABLE_DIFFUSION, DDPM])
def test_a_trial_draws_all_pictures_and_times_them(kind, space_for):
    space = space_for(kind)
    made = studio(space)
    references = made.draw(space.reference)
    assert len(references) == 4
    found = made.try_case(space.start, references)
    assert found.case == space.start.id
    assert len(found.ssim) == len(found.flip) == 4
    assert len(found.samples_s) >= FEWEST_SAMPLES
    assert 0 < found.seconds < found.cost_s
    assert found.first_call_s >= 2 * found.seconds
    assert found.complete
    assert found.peak_bytes is None


def test_the_reference_is_as_near_to_itself_as_can_be_and_few_steps_are_less(space_for):
    space = space_for(start={"scheduler": "ddim", "steps": 8})
    made = studio(space)
    references = made.draw(space.reference)
    quality = {name: made.try_case(case, references).quality for name, case in space.cases.items()}
    assert quality["tiny/ddim-s8-g5-fp32"] == 1.0
    assert quality["tiny/ddim-s8-g5-fp32"] > quality["tiny/ddim-s6-g5-fp32"] > quality["tiny/ddim-s2-g5-fp32"]


@pytest.mark.parametrize("images", [1, 2])
def test_pictures_do_not_depend_on_how_many_a_call_draws(images, space_for):
    space = space_for(images=images)
    pictures = studio(space).draw(space.start)
    expected = studio(space_for()).draw(space_for().start)
    for one, other in zip(pictures, expected, strict=True):
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def test_hopeless_first_pictures_end_a_trial(space_for):
    space = space_for()
    made = studio(space, measure=lambda images, *_: 0.3, min_quality=0.5)
    found = made.try_case(space.start, made.draw(space.reference))
    assert not found.complete
    assert len(found.ssim) == 2
    assert len(found.samples_s) == 1


def test_a_setting_without_effect_raises(space_for, monkeypatch):
    idle = Knob(lambda _pipeline: None, lambda _pipeline: 0)
    monkeypatch.setitem(optimizations.KNOBS, "guidance-cutoff", idle)
    space = space_for(optimizations=(("guidance-cutoff",),))
    made = studio(space)
    case = next(case for case in space.cases.values() if case.settings.optimizations)
    with pytest.raises(NotApplied, match="'guidance-cutoff' had no effect"):
        made.try_case(case, made.draw(space.reference))


def test_small_pipelines_stay_loaded(space_for, monkeypatch):
    space = space_for(dtype=("float32", "bfloat16"))
    made = studio(space)
    loaded: list[str] = []
    original = trial.load_pipeline

    def load(*arguments):
        loaded.append(arguments[1])
        return original(*arguments)

    monkeypatch.setattr(trial, "load_pipeline", load)
    for _ in range(2):
        for case in space.cases.values():
            made.time(case)
    assert sorted(loaded) == ["bfloat16", "float32"]


def test_large_pipelines_are_loaded_again(space_for, monkeypatch):
    monkeypatch.setattr(trial, "LARGEST_KEPT", 0.0)
    space = space_for(dtype=("float32", "bfloat16"))
    made = studio(space)
    for case in space.cases.values():
        made.time(case)
        assert len(made._pipelines) == 1
