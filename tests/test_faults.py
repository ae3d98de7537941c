"""Deliberate faults in the libraries, each like one that really happened: the goldens must turn red."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from bench import sampling
from bench.golden_store import describe_origin
from bench.goldens import PASSED, judge
from bench.run import Run
from bench.suite import Case

Patch = pytest.MonkeyPatch
DPM = "emoji-sd/dpmpp-2m-s20-g7.5-fp32"
KARRAS = "emoji-sd/dpmpp-2m-karras-s20-g7.5-fp32"
EULER = "emoji-sd/euler-s20-g7.5-fp32"
DDIM = "emoji-sd/ddim-s20-g7.5-fp32"
PNDM = "emoji-sd/pndm-s5-g7.5-fp32"
PIXELS = "emoji-ddpm/ddpm-s50-fp32"
PIXELS_DDIM = "emoji-ddpm/ddim-s20-fp32"


def other_scheduler_options(**options: Any) -> Callable[[Patch], None]:
    def fault(patch: Patch) -> None:
        build = sampling.build_scheduler

        def build_otherwise(name: str, kind: str, config: Any) -> Any:
            scheduler = build(name, kind, config)
            return type(scheduler).from_config(scheduler.config, **options)

        patch.setattr(sampling, "build_scheduler", build_otherwise)

    return fault


def unscaled_model_input(patch: Patch) -> None:
    patch.setattr(diffusers.EulerDiscreteScheduler, "scale_model_input", lambda self, sample, timestep: sample)


def swapped_colours(patch: Patch) -> None:
    change_pixels(patch, lambda array: array[..., ::-1])


def one_level_brighter(patch: Patch) -> None:
    change_pixels(patch, lambda array: np.clip(array + 1 / 255, 0, 1))


def pictures_not_clamped(patch: Patch) -> None:
    change_pixels(patch, lambda array: array * 2 - 0.5)


def change_pixels(patch: Patch, change: Callable[[np.ndarray], np.ndarray]) -> None:
    convert = diffusers.DiffusionPipeline.numpy_to_pil

    def convert_otherwise(images: np.ndarray) -> Any:
        return convert(change(images).clip(0, 1))

    patch.setattr(diffusers.DiffusionPipeline, "numpy_to_pil", staticmethod(convert_otherwise))
    patch.setattr(diffusers.image_processor.VaeImageProcessor, "numpy_to_pil", staticmethod(convert_otherwise))


def seeds_off_by_one(patch: Patch) -> None:
    generators = sampling.generators
    patch.setattr(sampling, "generators", lambda seeds: generators([seed + 1 for seed in seeds]))


def one_generator_for_all_images(patch: Patch) -> None:
    patch.setattr(sampling, "generators", lambda seeds: torch.Generator().manual_seed(seeds[0]))


def last_image_from_another_seed(patch: Patch) -> None:
    generators = sampling.generators
    patch.setattr(sampling, "generators", lambda seeds: generators([*seeds[:-1], 99]))


def guidance_a_little_stronger(patch: Patch) -> None:
    arguments = sampling.call_arguments

    def stronger(case: Case) -> dict[str, Any]:
        given = arguments(case)
        return given | {"guidance_scale": given["guidance_scale"] * 1.02}

    patch.setattr(sampling, "call_arguments", stronger)


FAULTS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "the last sigma is repeated instead of 0": (other_scheduler_options(final_sigmas_type="sigma_min"), DPM),
    "the same with Karras sigmas": (other_scheduler_options(final_sigmas_type="sigma_min"), KARRAS),
    "Karras sigmas are lost": (other_scheduler_options(use_karras_sigmas=False), KARRAS),
    "linear betas": (other_scheduler_options(beta_schedule="linear"), DDIM),
    "steps_offset 0": (other_scheduler_options(steps_offset=0), DDIM),
    "latents clipped as if they were pixels": (other_scheduler_options(clip_sample=True), DDIM),
    "v-prediction instead of noise": (other_scheduler_options(prediction_type="v_prediction"), DDIM),
    "trailing timesteps": (other_scheduler_options(timestep_spacing="trailing"), DDIM),
    "Euler's model input unscaled": (unscaled_model_input, EULER),
    "red and blue swapped": (swapped_colours, PNDM),
    "one level brighter": (one_level_brighter, PNDM),
    "range of pictures taken wrongly": (pictures_not_clamped, PIXELS_DDIM),
    "seeds off by one": (seeds_off_by_one, PNDM),
    "one generator shared by all images": (one_generator_for_all_images, PIXELS),
    "one wrong tile": (last_image_from_another_seed, PIXELS_DDIM),
    "guidance 2 % stronger": (guidance_a_little_stronger, PNDM),
    "pixels not clipped between steps": (other_scheduler_options(clip_sample=False), PIXELS),
}


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


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_turns_its_case_red(name: str, bench_session: Any, run: Run, monkeypatch: Patch) -> None:
    fault, case_id = FAULTS[name]
    fault(monkeypatch)
    assert verdict(run, find_case(bench_session, case_id)) == "changed"


@pytest.mark.parametrize("case_id", sorted({case_id for _, case_id in FAULTS.values()}))
def test_without_a_fault_the_same_cases_are_green(case_id: str, bench_session: Any, run: Run) -> None:
    assert verdict(run, find_case(bench_session, case_id)) in PASSED
