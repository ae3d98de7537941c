"""The stages of training, in order, each with its default plan."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from bench.pipelines import CHECKPOINTS
from bench.training import architectures, export, objectives
from bench.training.emoji import Pictures, all_pairs, split_pairs
from bench.training.loop import STATE, Plan, load_averaged, train

PLANS = {
    "vae": Plan(steps=2000, batch=32, learning_rate=1e-3),
    "sd": Plan(steps=5000, batch=64, learning_rate=1e-3),
    "ddpm": Plan(steps=4000, batch=64, learning_rate=1e-3),
}
EXPORTED = {"emoji-sd": "sd", "emoji-ddpm": "ddpm"}


def load_autoencoder(work: Path, font: Path | None) -> AutoencoderKL:
    """The trained autoencoder, its scaling factor set so that latents have unit variance (Rombach et al. 2022)."""
    vae = load_averaged(architectures.autoencoder(), work / "vae")
    latents = objectives.encode_all(vae, Pictures(architectures.SD_SIZE, font), split_pairs()[0])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae.requires_grad_(False)


def load_tokenizer(work: Path) -> CLIPTokenizer:
    architectures.write_tokenizer([pair.prompt for pair in all_pairs()], work / "tokenizer")
    return CLIPTokenizer.from_pretrained(work / "tokenizer")


def export_all(work: Path, font: Path | None) -> None:
    """Writes every checkpoint whose training has begun."""
    for name, stage in EXPORTED.items():
        if not (work / stage / STATE).is_file():
            print(f"{name}: nothing trained in {work / stage}, left as it is")
            continue
        folder = CHECKPOINTS / name
        if stage == "sd":
            export.export_text_to_image(work, load_autoencoder(work, font), load_tokenizer(work), folder)
        else:
            export.export_image(work, folder)
        size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        print(f"{name}: {size / 2**20:.1f} MiB of weights in {folder}")


def run(options: argparse.Namespace) -> None:
    """Runs one stage.

    Raises:
        FileNotFoundError: the font or an earlier stage's state is missing.
        FloatingPointError: the training diverged.
    """
    if options.stage == "export":
        export_all(options.work, options.font)
        return
    plan = replace(PLANS[options.stage], seed=options.seed)
    plan = replace(plan, steps=options.steps or plan.steps, batch=options.batch or plan.batch)
    folder = options.work / options.stage
    if options.restart:
        shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(plan.seed)
    if options.stage == "vae":
        objective = objectives.autoencoder_objective(options.font)
    elif options.stage == "sd":
        vae = load_autoencoder(options.work, options.font)
        torch.manual_seed(plan.seed)
        objective = objectives.text_to_image_objective(vae, load_tokenizer(options.work), options.font)
    else:
        objective = objectives.image_objective(options.font)
    train(objective, plan, folder)
