"""The embedded checkpoints: complete, small, documented, and readable by every supported release."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import CLIPTokenizer

from bench.calls.pipelines import CHECKPOINTS
from bench.suite.file import read_suite

MEGABYTE = 2**20
EMBEDDED = [model.name for model in read_suite().models if model.source == "embedded"]


def weight_files() -> list[Path]:
    return sorted(CHECKPOINTS.rglob("*.safetensors"))


def test_all_weights_together_fit_into_32_megabytes() -> None:
    assert len(weight_files()) == 4
    assert sum(path.stat().st_size for path in weight_files()) < 32 * MEGABYTE


def test_no_weights_are_pickled() -> None:
    assert not list(CHECKPOINTS.rglob("*.bin"))


def test_all_weights_are_float16() -> None:
    for path in weight_files():
        with safe_open(path, "pt") as weights:
            assert {weights.get_slice(name).get_dtype() for name in list(weights.keys())} == {"F16"}, path


def test_every_release_can_read_the_text_encoder_s_weights() -> None:
    with safe_open(CHECKPOINTS / "emoji-sd" / "text_encoder" / "model.safetensors", "pt") as weights:
        assert all(name.startswith("text_model.") for name in list(weights.keys()))


def test_the_tokenizer_gives_the_ids_that_the_text_encoder_learnt() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(CHECKPOINTS / "emoji-sd" / "tokenizer", local_files_only=True)
    assert tokenizer("Christmas tree on an orange background").input_ids == [1135, 829, 614, 514, 534, 552, 521, 1136]
    assert tokenizer("naïve ☕ Zürich!").input_ids == [
        1135, 77, 64, 127, 107, 85, 324, 158, 246, 499, 89, 127, 120, 81, 568, 327, 256, 1136,
    ]  # fmt: skip
    assert tokenizer("").input_ids == [1135, 1136]
    assert tokenizer.pad_token_id == 1136


def test_the_tokenizer_cuts_what_the_text_encoder_cannot_take() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(CHECKPOINTS / "emoji-sd" / "tokenizer", local_files_only=True)
    assert tokenizer.model_max_length == 24
    assert len(tokenizer("panda " * 100, truncation=True).input_ids) == 24


def test_the_scheduler_has_the_values_of_stable_diffusion_1() -> None:
    config = json.loads((CHECKPOINTS / "emoji-sd" / "scheduler" / "scheduler_config.json").read_text())
    expected = {
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    assert expected.items() <= config.items()


@pytest.mark.parametrize("name", EMBEDDED)
def test_each_checkpoint_has_a_card_with_its_figures_and_samples(name: str) -> None:
    folder = CHECKPOINTS / name
    card = (folder / "README.md").read_text()
    for heading in ("## Data", "## Architecture", "## Training", "## What it can do", "## Licence"):
        assert heading in card
    assert json.loads((folder / "figures.json").read_text())
    assert (folder / "samples.png").is_file()


def test_emoji_sd_draws_what_the_prompt_says() -> None:
    figures = json.loads((CHECKPOINTS / "emoji-sd" / "figures.json").read_text())
    assert figures["prompts"]["trained, dpmpp-2m"]["nearest"] >= 0.98
    assert figures["prompts"]["never trained, dpmpp-2m"]["nearest"] >= 0.85


def test_emoji_sd_needs_guidance_but_not_too_much() -> None:
    guidance = json.loads((CHECKPOINTS / "emoji-sd" / "figures.json").read_text())["guidance"]
    scores = [found["mean_ssim"] for found in guidance.values()]
    best = scores.index(max(scores))
    assert 0 < best < len(scores) - 1


@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp-2m"])
def test_more_steps_come_nearer_to_many_steps(scheduler: str) -> None:
    steps = json.loads((CHECKPOINTS / "emoji-sd" / "figures.json").read_text())["steps"][scheduler]
    scores = list(steps.values())
    assert scores == sorted(scores)


def test_emoji_ddpm_makes_emoji_and_not_noise() -> None:
    figures = json.loads((CHECKPOINTS / "emoji-ddpm" / "figures.json").read_text())
    generated, among_training, noise = (found["mean_ssim"] for found in figures.values())
    assert generated > (among_training + noise) / 2
