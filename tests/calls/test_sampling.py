"""Seeds to pictures: a picture depends on its seed and its settings, and on nothing that ran before or with it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from bench.calls import sampling, schedulers
from bench.calls.sampling import BrokenPicture, call_arguments, generate, prepare_call, to_images
from bench.calls.schedulers import UnknownSchedulerOption, build_scheduler
from bench.calls.tasks import task_arguments
from bench.suite.schedulers import DDPM, SCHEDULERS, STABLE_DIFFUSION, SchedulerChoice, allowed_schedulers
from bench.suite.tasks import TASKS

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = ("red fox", "blue whale", "green castle")
KINDS = pytest.mark.parametrize("kind", [STABLE_DIFFUSION, DDPM])
PAIRS = [(name, kind) for name, choice in SCHEDULERS.items() for kind in sorted(choice.kinds)]


def levels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(np.int16)


def identical(one: list[Image.Image], other: list[Image.Image]) -> bool:
    return np.array_equal(levels(one), levels(other))


def alone(tiny_case, kind, number, **settings):
    """The case of image ``number`` by itself."""
    if kind == STABLE_DIFFUSION:
        settings |= {"prompts": PROMPTS[number : number + 1]}
    return tiny_case(kind, images=1, seed=settings.pop("seed", 0) + number, **settings)


def together(tiny_case, kind, **settings):
    """The case of three images in one batch."""
    if kind == STABLE_DIFFUSION:
        settings |= {"prompts": PROMPTS}
    return tiny_case(kind, images=3, **settings)


@KINDS
@pytest.mark.parametrize("task", TASKS)
def test_a_case_cannot_replace_what_the_suite_sets(kind, task, tiny_case):
    case = tiny_case(kind, **({"size": 64} if kind == STABLE_DIFFUSION else {}))
    arguments = call_arguments(case)
    if kind == STABLE_DIFFUSION:
        arguments = task_arguments(task, arguments, (64, 64))
    for key in {*arguments} - {"height", "width"}:
        with pytest.raises(ValidationError, match=f"the suite itself sets '{key}'"):
            tiny_case(kind, call={key: 1})


@pytest.mark.parametrize(
    ("kind", "scheduler"),
    [(STABLE_DIFFUSION, "pndm"), (STABLE_DIFFUSION, "euler-ancestral"), (DDPM, "ddpm"), (DDPM, "ddim")],
)
def test_an_image_is_the_same_alone_and_in_a_batch(kind, scheduler, tiny_case, load_tiny):
    case = together(tiny_case, kind, scheduler=scheduler, seed=7)
    loaded = load_tiny(case)
    batch = generate(loaded, case)
    singles = [generate(loaded, alone(tiny_case, kind, n, scheduler=scheduler, seed=7))[0] for n in range(3)]
    assert np.abs(levels(batch) - levels(singles)).max() <= 1


@pytest.mark.parametrize(("kind", "scheduler"), [(STABLE_DIFFUSION, "euler-ancestral"), (DDPM, "ddpm")])
def test_one_generator_for_all_images_would_change_them(kind, scheduler, tiny_case, load_tiny, monkeypatch):
    case = together(tiny_case, kind, scheduler=scheduler)
    loaded = load_tiny(case)
    right = generate(loaded, case)
    monkeypatch.setattr(sampling, "generators", lambda seeds: [torch.Generator().manual_seed(seeds[0])] * len(seeds))
    shared = generate(loaded, case)
    assert all(np.abs(difference).max() > 1 for difference in levels(shared) - levels(right))


@KINDS
def test_a_seed_decides_the_picture(kind, tiny_case, load_tiny):
    case, other = tiny_case(kind, seed=3), tiny_case(kind, seed=30)
    loaded = load_tiny(case)
    first = generate(loaded, case)
    assert identical(generate(loaded, case), first)
    assert identical(generate(load_tiny(case), case), first)
    assert not identical(generate(loaded, other), first)


@KINDS
def test_the_images_of_a_grid_differ_from_each_other(kind, tiny_case, load_tiny):
    settings = {"prompts": ("red fox",) * 3} if kind == STABLE_DIFFUSION else {}
    case = tiny_case(kind, images=3, **settings)
    one, two, three = generate(load_tiny(case), case)
    assert not identical([one], [two])
    assert not identical([one], [three])
    assert not identical([two], [three])


@KINDS
def test_the_global_random_state_is_neither_used_nor_changed(kind, tiny_case, load_tiny):
    case = tiny_case(kind, scheduler="ddpm")
    loaded = load_tiny(case)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = generate(loaded, case)
        assert torch.equal(torch.get_rng_state(), torch.manual_seed(1).get_state())
        torch.manual_seed(2)
        assert identical(generate(loaded, case), first)


@KINDS
def test_each_call_gets_a_new_scheduler_and_new_generators(kind, tiny_case, load_tiny):
    case = tiny_case(kind, seed=5)
    loaded = load_tiny(case)
    first, scheduler = prepare_call(loaded, case), loaded.pipeline.scheduler
    [generator.manual_seed(99) for generator in first["generator"]]
    second = prepare_call(loaded, case)
    assert loaded.pipeline.scheduler is not scheduler
    assert [generator.initial_seed() for generator in second["generator"]] == [5, 6]
    assert {generator.device.type for generator in second["generator"]} == {"cpu"}


@pytest.mark.parametrize(
    ("kind", "scheduler"), [(STABLE_DIFFUSION, "pndm"), (STABLE_DIFFUSION, "lms"), (DDPM, "ddpm"), (DDPM, "dpmpp-2m")]
)
def test_a_call_with_other_steps_before_changes_nothing(kind, scheduler, tiny_case, load_tiny):
    case = tiny_case(kind, scheduler=scheduler)
    fresh = generate(load_tiny(case), case)
    used = load_tiny(case)
    generate(used, tiny_case(kind, scheduler=scheduler, steps=7))
    assert identical(generate(used, case), fresh)


@pytest.mark.parametrize(
    ("before", "scheduler"), [("dpmpp-2m-karras", "dpmpp-2m"), ("ddim", "pndm"), ("heun", "euler")]
)
def test_another_scheduler_before_changes_nothing(before, scheduler, tiny_case, load_tiny):
    case = tiny_case(STABLE_DIFFUSION, scheduler=scheduler)
    fresh = generate(load_tiny(case), case)
    used = load_tiny(case)
    generate(used, tiny_case(STABLE_DIFFUSION, scheduler=before))
    assert identical(generate(used, case), fresh)


@pytest.mark.parametrize("setting", [{"prompts": PROMPTS[1:]}, {"guidance": 1.0}, {"steps": 5}, {"scheduler": "ddim"}])
def test_each_setting_of_stable_diffusion_reaches_the_pipeline(setting, tiny_case, load_tiny):
    case = tiny_case(STABLE_DIFFUSION)
    loaded = load_tiny(case)
    assert not identical(generate(loaded, tiny_case(STABLE_DIFFUSION, **setting)), generate(loaded, case))


def test_the_size_is_that_of_the_settings_or_the_checkpoints_own(tiny_case, load_tiny):
    case = tiny_case(STABLE_DIFFUSION)
    loaded = load_tiny(case)
    assert {image.size for image in generate(loaded, case)} == {(16, 16)}
    assert {image.size for image in generate(loaded, tiny_case(STABLE_DIFFUSION, size=32))} == {(32, 32)}


def test_ddpm_gets_a_batch_size_and_no_unknown_arguments(tiny_case):
    arguments = call_arguments(tiny_case(DDPM, images=3, steps=6))
    assert arguments.keys() == {"num_inference_steps", "generator", "output_type", "batch_size"}
    assert (arguments["num_inference_steps"], arguments["batch_size"], len(arguments["generator"])) == (6, 3, 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_counted_by_image(value, tiny_case, load_tiny):
    pipeline = load_tiny(tiny_case(DDPM)).pipeline
    output = torch.full((4, 3, 16, 16), 0.5)
    output[1, 2, 3, 4] = value
    output[3, 0] = value
    with pytest.raises(BrokenPicture, match=r"^2 of 4 images hold NaN or infinite values\.$"):
        to_images(pipeline, output)


@KINDS
def test_an_overflow_is_a_broken_picture_and_not_a_black_one(kind, tiny_case, load_tiny):
    case = tiny_case(kind, images=3)
    loaded = load_tiny(case)
    with torch.no_grad():
        loaded.pipeline.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(BrokenPicture, match=r"^3 of 3 images"):
        generate(loaded, case)


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 4, 16, 16), (3, 16, 16), (2, 3, 16)])
def test_an_output_of_another_shape_is_not_a_picture(shape, tiny_case, load_tiny):
    pipeline = load_tiny(tiny_case(DDPM)).pipeline
    with pytest.raises(BrokenPicture, match="instead of RGB pictures"):
        to_images(pipeline, np.moveaxis(np.zeros(shape), 1, -1))


@KINDS
def test_an_array_of_an_old_library_gives_the_same_pictures(kind, tiny_case, load_tiny):
    pipeline = load_tiny(tiny_case(kind)).pipeline
    output = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    from_array = to_images(pipeline, output.permute(0, 2, 3, 1).numpy())
    assert identical(to_images(pipeline, output), from_array)
    assert np.array_equal(levels(from_array), (output.permute(0, 2, 3, 1).numpy() * 255).round())


@KINDS
def test_bfloat16_gives_nearly_the_pictures_of_float32(kind, tiny_case, load_tiny):
    exact, rough = tiny_case(kind), tiny_case(kind, dtype="bfloat16")
    difference = levels(generate(load_tiny(rough), rough)) - levels(generate(load_tiny(exact), exact))
    assert 0 < np.abs(difference).mean() < 8


@pytest.mark.parametrize(("scheduler", "kind"), PAIRS)
def test_every_allowed_scheduler_gives_pictures(scheduler, kind, tiny_case, load_tiny):
    case = tiny_case(kind, scheduler=scheduler)
    images = generate(load_tiny(case), case)
    assert [image.mode for image in images] == ["RGB", "RGB"]
    assert levels(images).std() > 5


@pytest.mark.parametrize(("scheduler", "kind"), PAIRS)
def test_every_scheduler_keeps_the_noise_of_the_checkpoint(scheduler, kind, tiny_case, load_tiny):
    config = load_tiny(tiny_case(kind)).scheduler_config
    built = build_scheduler(scheduler, kind, config)
    assert type(built).__name__ == SCHEDULERS[scheduler].class_name
    for key in ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type"):
        assert built.config[key] == config[key]


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_latents_are_not_clipped_as_if_they_were_pixels(scheduler, tiny_case, load_tiny):
    config = load_tiny(tiny_case(STABLE_DIFFUSION)).scheduler_config
    assert build_scheduler(scheduler, STABLE_DIFFUSION, config).config.clip_sample is False


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_pixels_are_clipped_as_the_checkpoint_says(scheduler, tiny_case, load_tiny):
    config = load_tiny(tiny_case(DDPM)).scheduler_config
    assert config["clip_sample"] is True
    assert build_scheduler(scheduler, DDPM, config).config.clip_sample is True


def test_karras_sigmas_are_really_used(tiny_case, load_tiny):
    config = load_tiny(tiny_case(STABLE_DIFFUSION)).scheduler_config
    plain, karras = (build_scheduler(name, STABLE_DIFFUSION, config) for name in ("dpmpp-2m", "dpmpp-2m-karras"))
    assert karras.config.use_karras_sigmas is True
    plain.set_timesteps(10)
    karras.set_timesteps(10)
    assert not torch.allclose(plain.sigmas, karras.sigmas)


def test_an_option_applies_even_if_the_configuration_has_a_default(tiny_case, load_tiny):
    config = load_tiny(tiny_case(STABLE_DIFFUSION)).scheduler_config
    written = dict(build_scheduler("dpmpp-2m", STABLE_DIFFUSION, config).config)
    assert "use_karras_sigmas" in written["_use_default_values"]
    assert build_scheduler("dpmpp-2m-karras", STABLE_DIFFUSION, written).config.use_karras_sigmas is True


def test_an_option_that_the_library_does_not_know_is_refused(tiny_case, load_tiny, monkeypatch):
    config = load_tiny(tiny_case(DDPM)).scheduler_config
    bogus = SchedulerChoice("DDIMScheduler", frozenset({DDPM}), {"no_such_option": 1, "clip_sample": True})
    monkeypatch.setattr(schedulers, "SCHEDULERS", {"bogus": bogus})
    with pytest.raises(
        UnknownSchedulerOption, match=r"^DDIMScheduler of diffusers \S+ does not know no_such_option\.$"
    ):
        build_scheduler("bogus", DDPM, config)


@pytest.mark.parametrize("scheduler", sorted(set(SCHEDULERS) - set(allowed_schedulers(DDPM))))
def test_schedulers_that_ddpm_calls_wrongly_are_not_allowed_in_it(scheduler, tiny_case):
    with pytest.raises(ValueError, match=f"scheduler '{scheduler}' does not work in a ddpm pipeline"):
        tiny_case(DDPM, scheduler=scheduler)


def test_a_call_does_not_change_the_pipeline_s_own_configuration(tiny_case, load_tiny):
    case = tiny_case(STABLE_DIFFUSION, scheduler="dpmpp-2m-karras")
    loaded = load_tiny(case)
    before = dataclasses.replace(loaded, scheduler_config=dict(loaded.scheduler_config))
    generate(loaded, case)
    assert loaded == before
