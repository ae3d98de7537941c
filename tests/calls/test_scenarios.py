"""Ways of calling: those that must not matter give the plain pictures, other ways do not, and none leaves a trace."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from bench.calls import scenarios
from bench.calls.pipelines import PipelineError
from bench.calls.sampling import generate, prepared
from bench.calls.scenarios import NEVER, SOMETIMES, tiny_safety_checker
from bench.calls.schedulers import UnknownSchedulerOption
from bench.calls.tasks import drawn_mask, drawn_picture
from bench.calls.work import count_work
from bench.suite.scenarios import PLAIN, SCENARIOS
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.suite.tasks import IMAGE_TO_IMAGE, INPAINTING, TEXT_TO_IMAGE

pytestmark = pytest.mark.usefixtures("one_thread", "quick_collections")

KINDS = (STABLE_DIFFUSION, DDPM)
ALIKE = [(kind, name) for name, one in SCENARIOS.items() for kind in KINDS if one.like_plain and kind in one.kinds]
OTHERS = [
    (kind, name)
    for name, one in SCENARIOS.items()
    for kind in KINDS
    if not one.like_plain and kind in one.kinds and name != PLAIN
]
# Tiny random networks are in float32 on disk, so a pipeline without a named dtype has the same pictures; the embedded
# networks are in float16. None of the pictures is blackened.
SAME_WITH_TINY_NETWORKS = {"loaded-without-dtype", "safety-checker-blackens"}


@pytest.fixture
def sentinel(tiny_case):
    def make(kind, **settings):
        task = SCENARIOS[settings.get("scenario", PLAIN)].task or TEXT_TO_IMAGE
        usual = {"sentinel": "ways", "steps": 3, "scheduler": "ddim", "images": 2, "task": task}
        return tiny_case(kind, **(usual | settings))

    return make


def levels(images) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(int)


@pytest.mark.parametrize(("kind", "scenario"), ALIKE)
def test_what_must_not_matter_gives_the_plain_pictures(kind, scenario, sentinel, load_tiny):
    loaded = load_tiny(sentinel(kind))
    case = sentinel(kind, scenario=scenario)
    plain, other = (levels(generate(loaded, one)) for one in (case.plain, case))
    assert np.abs(plain - other).max() <= 1


def test_a_scenario_of_one_task_is_refused_for_another(sentinel):
    assert sentinel(STABLE_DIFFUSION, scenario="soft-mask", task=INPAINTING)
    with pytest.raises(ValueError, match="scenario 'soft-mask' needs the task 'inpainting'"):
        sentinel(STABLE_DIFFUSION, scenario="soft-mask", task=TEXT_TO_IMAGE)


def test_an_error_while_loading_again_is_always_the_same(sentinel, load_tiny, monkeypatch):
    def fail(_model, checkpoint, *_):
        raise PipelineError(f"{checkpoint.folder} cannot be loaded (ValueError: no).")

    loaded, case = load_tiny(sentinel(STABLE_DIFFUSION)), sentinel(STABLE_DIFFUSION, scenario="safety-checker")
    monkeypatch.setattr(scenarios, "load_checkpoint", fail)
    with pytest.raises(PipelineError, match=r"^the saved pipeline cannot be loaded \(ValueError: no\)\.$"):
        generate(loaded, case)


@pytest.mark.parametrize(("kind", "scenario"), [one for one in OTHERS if one[1] not in SAME_WITH_TINY_NETWORKS])
def test_what_matters_gives_other_pictures(kind, scenario, sentinel, load_tiny):
    settings: dict[str, Any] = {"size": 64} if scenario in ("tiled-vae", "cropped-to-mask") else {}
    settings |= {"task": SCENARIOS[scenario].task or TEXT_TO_IMAGE}
    settings |= {"call": {"eta": 1.0}} if scenario == "ddim-pipeline" else {}
    settings |= {"steps": 15} if scenario == "interrupted" else {}
    loaded = load_tiny(sentinel(kind))
    plain = levels(generate(loaded, sentinel(kind, **({} if scenario == "ddim-pipeline" else settings))))
    other = levels(generate(loaded, sentinel(kind, scenario=scenario, **settings)))
    assert np.abs(plain - other).max() > 1


@pytest.mark.parametrize(("kind", "scenario"), ALIKE + OTHERS)
def test_a_scenario_leaves_pipeline_and_random_state_unchanged(kind, scenario, sentinel, load_tiny):
    loaded, state = load_tiny(sentinel(kind)), torch.random.get_rng_state()
    before = levels(generate(loaded, sentinel(kind)))
    settings = {"call": {"eta": 1.0}} if scenario == "ddim-pipeline" else {}
    generate(loaded, sentinel(kind, scenario=scenario, **settings))
    assert (levels(generate(loaded, sentinel(kind))) == before).all()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_is_left_of_a_first_call_shows_in_the_second(sentinel, load_tiny, monkeypatch):
    case = sentinel(STABLE_DIFFUSION, scheduler="pndm", scenario="called-twice")
    loaded = load_tiny(case)
    before = levels(generate(loaded, case))
    really = diffusers.PNDMScheduler.set_timesteps

    def keeping(self, *args, **kwargs):
        kept = list(self.ets)
        really(self, *args, **kwargs)
        self.ets = kept

    monkeypatch.setattr(diffusers.PNDMScheduler, "set_timesteps", keeping)
    assert np.abs(levels(generate(loaded, case)) - before).max() > 1


def test_a_saved_pipeline_keeps_the_options_of_its_scheduler(sentinel, load_tiny):
    case = sentinel(
        STABLE_DIFFUSION, scheduler="dpmpp-2m", options={"use_karras_sigmas": True}, scenario="saved-and-loaded"
    )
    made = prepared(load_tiny(case), case)
    assert made.pipeline.scheduler.config.use_karras_sigmas
    assert made.pipeline is not load_tiny(case).pipeline


def test_loading_is_not_counted_as_work_of_the_call(sentinel, load_tiny):
    loaded = load_tiny(sentinel(DDPM))
    plain, saved = (count_work(loaded, sentinel(DDPM, scenario=name)) for name in (PLAIN, "saved-and-loaded"))
    assert saved == plain


def test_the_safety_checker_blackens_what_is_over_its_threshold():
    checker = tiny_safety_checker(SOMETIMES)
    clip_input = torch.linspace(-1, 1, 64 * 3 * 32 * 32).reshape(64, 3, 32, 32).sin()
    pictures = np.ones((64, 8, 8, 3))
    for threshold, expected in ((-2.0, 64), (NEVER, 0)):
        checker.concept_embeds_weights.data.fill_(threshold)
        images, flagged = checker(clip_input, pictures.copy())
        assert sum(flagged) == expected
        assert (images == 0).all(axis=(1, 2, 3)).sum() == expected


def test_the_safety_checker_is_the_same_every_time():
    one, other = tiny_safety_checker(NEVER), tiny_safety_checker(NEVER)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("task", [IMAGE_TO_IMAGE, INPAINTING])
def test_other_tasks_start_from_a_drawn_picture(task, sentinel, load_tiny):
    case = sentinel(STABLE_DIFFUSION, task=task, call={"strength": 0.4})
    loaded = load_tiny(case)
    few = levels(generate(loaded, case))
    many = levels(generate(loaded, sentinel(STABLE_DIFFUSION, task=task, call={"strength": 1.0})))
    text = levels(generate(loaded, sentinel(STABLE_DIFFUSION)))
    assert few.shape == many.shape == text.shape
    assert np.abs(few - many).max() > 1
    assert np.abs(few - text).max() > 1


def test_a_task_takes_the_size_that_the_call_asks_for(sentinel, load_tiny):
    for task in (IMAGE_TO_IMAGE, INPAINTING):
        case = sentinel(STABLE_DIFFUSION, task=task, call={"strength": 0.5, "height": 32, "width": 16})
        assert {image.size for image in generate(load_tiny(case), case)} == {(16, 32)}


def test_the_drawn_picture_and_mask_are_always_the_same():
    assert drawn_picture((64, 48)) == drawn_picture((64, 48))
    assert drawn_picture((64, 48)).size == drawn_mask((64, 48)).size == (64, 48)
    assert len(set(drawn_picture((64, 48)).getdata())) > 20
    assert set(drawn_mask((64, 48)).getdata()) == {0, 255}


def test_an_option_that_the_scheduler_does_not_know_is_an_error(sentinel, load_tiny):
    case = sentinel(DDPM, options={"use_karras_sigmas": True})
    with pytest.raises(UnknownSchedulerOption, match="does not know use_karras_sigmas"):
        generate(load_tiny(case), case)


def test_options_replace_the_defaults_of_the_checkpoint(sentinel, load_tiny):
    case = sentinel(STABLE_DIFFUSION, scheduler="dpmpp-2m", options={"prediction_type": "v_prediction"})
    assert prepared(load_tiny(case), case).pipeline.scheduler.config.prediction_type == "v_prediction"
