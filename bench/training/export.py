"""From training states to the embedded checkpoints: the averaged weights, in float16, in diffusers' folder format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMPipeline, DiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from bench.training import architectures, objectives
from bench.training.loop import load_averaged


def _tidy_configurations(folder: Path) -> None:
    """Drops what only the exporting library wrote: private keys, and keys whose value is unset."""
    for path in folder.rglob("*config.json"):
        config = json.loads(path.read_text())
        kept = {key: value for key, value in config.items() if value is not None and key != "_name_or_path"}
        path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def _save(pipeline: DiffusionPipeline, folder: Path) -> None:
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    _tidy_configurations(folder)


def _prefix_text_encoder(folder: Path) -> None:
    """Names the weights as Stable Diffusion's own checkpoints do: releases 4 and 5 of transformers both read these."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    prefix = "text_model."
    save_file({prefix + name.removeprefix(prefix): tensor for name, tensor in weights.items()}, path, {"format": "pt"})


def export_text_to_image(work: Path, vae: AutoencoderKL, tokenizer: CLIPTokenizer, folder: Path) -> None:
    modules = load_averaged(objectives.text_modules(len(tokenizer)), work / "sd")
    _save(objectives.text_pipeline(modules, vae, tokenizer), folder)
    _prefix_text_encoder(folder / "text_encoder")
    # Each release of transformers saves a tokenizer in its own way; all of them read CLIP's original files.
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(work / "tokenizer", folder / "tokenizer")


def export_image(work: Path, folder: Path) -> None:
    unet = load_averaged(architectures.image_unet(), work / "ddpm-finish")
    _save(DDPMPipeline(unet, architectures.ddpm_scheduler()), folder)
