"""The stages of training, in order, each with its default plan."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from bench.calls.device import Cpu
from bench.calls.pipelines import CHECKPOINTS
from bench.files import read_lines
from bench.training import architectures, card, export, measure, objectives
from bench.training.emoji import BACKGROUNDS, Pictures, all_pairs, read_emoji, split_pairs
from bench.training.loop import LOSS_LOG, STATE, TrainingPlan, load_averaged, train

PLANS = {
    "vae": TrainingPlan(steps=2000, batch=32, learning_rate=1e-3),
    "decoder": TrainingPlan(steps=600, batch=32, learning_rate=1e-3),
    "sd": TrainingPlan(steps=2900, batch=64, learning_rate=1e-3),
    "ddpm": TrainingPlan(steps=2200, batch=64, learning_rate=1e-3),
    "ddpm-finish": TrainingPlan(steps=1000, batch=64, learning_rate=5e-4, decay=0.7),
}
# Checkpoint: the stages that its weights come from.
EXPORTED = {"emoji-sd": ("vae", "decoder", "sd"), "emoji-ddpm": ("ddpm", "ddpm-finish")}


def load_autoencoder(work: Path, font: Path | None) -> AutoencoderKL:
    """The trained autoencoder, its scaling factor set so that latents have unit variance (Rombach et al. 2022)."""
    vae = load_averaged(architectures.autoencoder(), work / "vae")
    latents = objectives.encode_all(vae, Pictures(architectures.SD_SIZE, font), split_pairs()[0])
    if (work / "decoder" / STATE).is_file():
        tuned = load_averaged(objectives.decoder_modules(vae), work / "decoder")
        vae.decoder, vae.post_quant_conv = tuned["decoder"], tuned["post_quant_conv"]
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae.requires_grad_(False)


def load_tokenizer(work: Path) -> CLIPTokenizer:
    architectures.write_tokenizer([pair.prompt for pair in all_pairs()], work / "tokenizer")
    return CLIPTokenizer.from_pretrained(work / "tokenizer")


def export_all(work: Path, font: Path | None) -> None:
    """Writes every checkpoint whose stages have all been trained."""
    for name, stages in EXPORTED.items():
        missing = [stage for stage in stages if not (work / stage / STATE).is_file()]
        if missing:
            print(f"{name}: {', '.join(missing)} not trained in {work}, left as it is")
            continue
        folder = CHECKPOINTS / name
        if name == "emoji-sd":
            export.export_text_to_image(work, load_autoencoder(work, font), load_tokenizer(work), folder)
        else:
            export.export_image(work, folder)
        trained = {stage: read_progress(work / stage) for stage in stages}
        facts = {"machine": f"{Cpu().name}, {os.cpu_count()} cores, shared", "stages": trained}
        (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
        size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        print(f"{name}: {size / 2**20:.1f} MiB of weights in {folder}")


def read_progress(folder: Path) -> dict[str, float]:
    """Steps, pictures per step, hours and smoothed loss of a stage, from its log."""
    last = json.loads(read_lines(folder / LOSS_LOG)[-1])
    return {"steps": last["step"], "batch": last["batch"], "hours": last["seconds"] / 3600, "loss": last["loss"]}


def write_cards(names: Sequence[str], font: Path | None) -> None:
    """Measures the checkpoints and writes their model cards and sample grids."""
    emoji, pairs, held_out = len(read_emoji()), len(all_pairs()), len(split_pairs()[1])
    for name in names:
        folder = CHECKPOINTS / name
        size = architectures.SD_SIZE if name == "emoji-sd" else architectures.DDPM_SIZE
        figures = measure.measure_text_to_image(font) if name == "emoji-sd" else measure.measure_image(font)
        samples = measure.sample_text_to_image() if name == "emoji-sd" else measure.sample_image()
        samples.save(folder / "samples.png", optimize=True)
        data = {"emoji": emoji, "colours": len(BACKGROUNDS) - 1, "size": size, "pairs": pairs, "held_out": held_out}
        training = json.loads((folder / "training.json").read_text())
        print(f"{name}: {card.write_card(folder, training, figures, data)}")


def run(options: argparse.Namespace) -> None:
    """Runs one stage.

    Raises:
        UsageError: the font or an earlier stage's state is missing.
        FloatingPointError: the training diverged.
    """
    if options.stage == "export":
        export_all(options.work, options.font)
        return
    if options.stage == "card":
        write_cards(options.checkpoints or list(EXPORTED), options.font)
        return
    plan = replace(PLANS[options.stage], seed=options.seed)
    plan = replace(plan, steps=options.steps or plan.steps, batch=options.batch or plan.batch)
    folder = options.work / options.stage
    if options.restart:
        shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(plan.seed)
    if options.stage == "vae":
        objective = objectives.autoencoder_objective(options.font)
    elif options.stage == "decoder":
        vae = load_averaged(architectures.autoencoder(), options.work / "vae")
        objective = objectives.decoder_objective(vae, options.font)
    elif options.stage == "sd":
        vae = load_autoencoder(options.work, options.font)
        torch.manual_seed(plan.seed)
        objective = objectives.text_to_image_objective(vae, load_tokenizer(options.work), options.font)
    elif options.stage == "ddpm":
        objective = objectives.image_objective(architectures.image_unet(), options.font, finish=False)
    else:
        unet = load_averaged(architectures.image_unet(), options.work / "ddpm")
        objective = objectives.image_objective(unet, options.font, finish=True)
    train(objective, plan, folder)
