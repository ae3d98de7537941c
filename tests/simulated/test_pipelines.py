"""Pipelines of diffusers give the CPU's pictures, and their work is counted."""

from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, StableDiffusionPipeline
from diffusers.hooks import apply_group_offloading

from bench.calls.optimizations import KNOBS, apply_optimizations
from bench.simulated.devices import device as device_of


def _load(kind, folder):
    loaded = {"sd": StableDiffusionPipeline, "ddpm": DDPMPipeline}[kind].from_pretrained(Path(folder))
    loaded.set_progress_bar_config(disable=True)
    return loaded


def _levels(pipeline, kind):
    given = {"prompt": ["red fox", "blue whale"]} if kind == "sd" else {"batch_size": 2}
    made = pipeline(**given, num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type="np").images
    return torch.from_numpy((255 * made).round())


def _differ(pipeline, kind, folder):
    """The largest difference from the CPU's picture, in levels of 255."""
    return (_levels(pipeline, kind) - _levels(_load(kind, folder), kind)).abs().max().item()


def test_stable_diffusion_gives_the_pictures_of_the_cpu(tiny_sd_folder):
    pipeline = _load("sd", tiny_sd_folder).to("sim")
    device_of(0).counters.reset()
    assert _differ(pipeline, "sd", tiny_sd_folder) <= 1
    assert device_of(0).counters.kernels > 500


def test_ddpm_gives_the_pictures_of_the_cpu_and_copies_them_once(tiny_ddpm_folder):
    pipeline = _load("ddpm", tiny_ddpm_folder).to("sim")
    device_of(0).counters.reset()
    assert _differ(pipeline, "ddpm", tiny_ddpm_folder) <= 1
    assert device_of(0).counters.waits["copy to host"] == 1


@pytest.mark.parametrize("way", ["model", "sequential", "group"])
def test_offloading_gives_the_same_pictures_in_less_memory(tiny_sd_folder, way):
    pipeline = _load("sd", tiny_sd_folder)
    weights = sum(
        value.nbytes for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder) for value in part.parameters()
    )
    torch.accelerator.reset_peak_memory_stats()
    before = torch.accelerator.memory_allocated()
    if way == "group":
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            apply_group_offloading(part, onload_device=torch.device("sim"), offload_type="leaf_level")
    else:
        getattr(pipeline, f"enable_{way}_cpu_offload")(device="sim")
    assert _differ(pipeline, "sd", tiny_sd_folder) <= 1
    copied = device_of(0).counters.copied_bytes["host to device"]
    assert copied > weights
    assert torch.accelerator.max_memory_allocated() - before < weights


@pytest.mark.parametrize("name", ["model-offload", "sequential-offload", "group-offload"])
def test_an_offload_of_the_suite_takes_effect(tiny_sd_folder, name):
    pipeline = _load("sd", tiny_sd_folder).to("sim")
    apply_optimizations(pipeline, (name,))
    assert KNOBS[name].count(pipeline) > 0
    assert _differ(pipeline, "sd", tiny_sd_folder) <= 1
