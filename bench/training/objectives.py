"""What each network learns: the autoencoder, the text-to-image UNet with its text encoder, the pixel UNet."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DModel,
)
from PIL import Image
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid
from transformers import CLIPTokenizer

from bench.training import architectures
from bench.training.emoji import WHITE, Pair, Pictures, split_pairs
from bench.training.loop import Objective

KL_WEIGHT = 1e-6
LATENT_NOISE = 0.03
PROMPT_DROPOUT = 0.1
PLAIN_SHARE = 0.2
MIN_SNR_GAMMA = 5.0
PREVIEW_PAIRS = [
    Pair("panda"),
    Pair("fox", "blue"),
    Pair("rocket", "purple"),
    Pair("strawberry", "green"),
    Pair("octopus", "yellow"),
    Pair("castle", "pink"),
    Pair("guitar"),
    Pair("hamburger", "orange"),
]


def as_image(batch: torch.Tensor, columns: int = 8) -> Image.Image:
    return to_pil_image(make_grid(batch.float().clamp(-1, 1) / 2 + 0.5, nrow=columns))


def draw_batch(pairs: list[Pair], count: int, generator: torch.Generator) -> list[Pair]:
    """A random batch with a fifth of plain pictures: they are 1 in 11 of the pairs, and each fixes a shape."""
    picker = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
    plain = [pair for pair in pairs if pair.background == WHITE]
    coloured = [pair for pair in pairs if pair.background != WHITE]
    return [picker.choice(plain if picker.random() < PLAIN_SHARE else coloured) for _ in range(count)]


def min_snr_weight(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Loss weight of a noise prediction per timestep: min(SNR, gamma) / SNR (Hang et al. 2023, arXiv 2303.09556)."""
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=MIN_SNR_GAMMA) / snr


def noise_loss(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    clean: torch.Tensor,
    scheduler: Any,
    weights: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Mean squared error of the predicted noise at one random timestep per sample, weighted by timestep."""
    noise = torch.randn(clean.shape, generator=generator)
    timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(clean),), generator=generator)
    predicted = predict(scheduler.add_noise(clean, noise, timesteps), timesteps).float()
    return (weights[timesteps] * F.mse_loss(predicted, noise, reduction="none").mean(dim=(1, 2, 3))).mean()


def pixel_loss(rebuilt: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels and of the differences of neighbours, which sharpens edges."""
    edges = sum(F.l1_loss(rebuilt.diff(dim=axis), clean.diff(dim=axis)) for axis in (-1, -2))
    return F.l1_loss(rebuilt, clean) + edges


def autoencoder_objective(font: Path | None) -> Objective:
    """Rebuilt pixels, and a small KL term that keeps the latents together."""
    pictures = Pictures(architectures.SD_SIZE, font)
    pairs = split_pairs()[0]

    def loss(vae: torch.nn.Module, count: int, generator: torch.Generator) -> torch.Tensor:
        clean = pictures.draw(draw_batch(pairs, count, generator))
        posterior = vae.encode(clean).latent_dist
        rebuilt = vae.decode(posterior.sample(generator)).sample.float()
        return pixel_loss(rebuilt, clean) + KL_WEIGHT * posterior.kl().mean()

    def preview(vae: torch.nn.Module) -> Image.Image:
        clean = pictures.draw(PREVIEW_PAIRS)
        return as_image(torch.cat([clean, vae(clean).sample]))

    return Objective(architectures.autoencoder(), loss, preview)


def decoder_objective(vae: AutoencoderKL, font: Path | None) -> Objective:
    """The decoder alone, from latents with a little noise: sharper pictures without touching what the UNet learnt."""
    pictures = Pictures(architectures.SD_SIZE, font)
    pairs = split_pairs()[0]
    latents = encode_all(vae, pictures, pairs)
    row = {pair: number for number, pair in enumerate(pairs)}
    spread = latents.std()

    def decode(modules: torch.nn.Module, latent: torch.Tensor) -> torch.Tensor:
        return modules["decoder"](modules["post_quant_conv"](latent)).float()

    def loss(modules: torch.nn.Module, count: int, generator: torch.Generator) -> torch.Tensor:
        batch = draw_batch(pairs, count, generator)
        latent = latents[[row[pair] for pair in batch]]
        noise = torch.randn(latent.shape, generator=generator) * spread * LATENT_NOISE
        return pixel_loss(decode(modules, latent + noise), pictures.draw(batch))

    def preview(modules: torch.nn.Module) -> Image.Image:
        return as_image(
            torch.cat([pictures.draw(PREVIEW_PAIRS), decode(modules, encode_all(vae, pictures, PREVIEW_PAIRS))])
        )

    return Objective(decoder_modules(vae), loss, preview)


def decoder_modules(vae: AutoencoderKL) -> torch.nn.ModuleDict:
    return torch.nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})


def encode_all(vae: AutoencoderKL, pictures: Pictures, pairs: list[Pair]) -> torch.Tensor:
    """Latent means of all pairs, shape (len(pairs), 4, 16, 16), not scaled."""
    with torch.no_grad():
        parts = [
            vae.encode(pictures.draw(pairs[start : start + 64])).latent_dist.mode()
            for start in range(0, len(pairs), 64)
        ]
    return torch.cat(parts)


def text_modules(vocabulary_size: int) -> torch.nn.ModuleDict:
    return torch.nn.ModuleDict(
        {"unet": architectures.text_unet(), "text_encoder": architectures.text_encoder(vocabulary_size)}
    )


def text_pipeline(
    modules: torch.nn.ModuleDict, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=modules["text_encoder"],
        tokenizer=tokenizer,
        unet=modules["unet"],
        scheduler=architectures.sd_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text_to_image_objective(vae: AutoencoderKL, tokenizer: CLIPTokenizer, font: Path | None) -> Objective:
    """Noise prediction on latents given the prompt, with classifier-free dropout (Ho and Salimans 2022)."""
    pairs = split_pairs()[0]
    latents = encode_all(vae, Pictures(architectures.SD_SIZE, font), pairs) * vae.config.scaling_factor
    row = {pair: number for number, pair in enumerate(pairs)}
    scheduler = architectures.sd_scheduler()
    weights = min_snr_weight(scheduler.alphas_cumprod)

    def loss(modules: torch.nn.Module, count: int, generator: torch.Generator) -> torch.Tensor:
        batch = draw_batch(pairs, count, generator)
        kept = torch.rand(count, generator=generator) >= PROMPT_DROPOUT
        prompts = [pair.prompt if keep else "" for pair, keep in zip(batch, kept.tolist(), strict=True)]
        tokens = tokenizer(
            prompts, padding="max_length", max_length=architectures.TOKENS, truncation=True, return_tensors="pt"
        ).input_ids
        text = modules["text_encoder"](tokens)[0]
        clean = latents[[row[pair] for pair in batch]]
        return noise_loss(lambda noisy, t: modules["unet"](noisy, t, text).sample, clean, scheduler, weights, generator)

    def preview(modules: torch.nn.Module) -> Image.Image:
        pipeline = text_pipeline(modules, vae, tokenizer)
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
        tensors = pipeline(
            [pair.prompt for pair in PREVIEW_PAIRS],
            num_inference_steps=20,
            guidance_scale=5.0,
            generator=[torch.Generator().manual_seed(seed) for seed in range(len(PREVIEW_PAIRS))],
            output_type="pt",
        ).images
        return as_image(tensors * 2 - 1)

    return Objective(text_modules(len(tokenizer)), loss, preview)


def image_objective(unet: UNet2DModel, font: Path | None, *, finish: bool) -> Objective:
    """Noise prediction on pixels, unconditional (Ho et al. 2020).

    Min-SNR weights teach shapes soonest, but hardly weigh the nearly clean timesteps; ``finish`` weighs all
    equally, as the paper does, which removes the grain from the pictures.
    """
    pictures = Pictures(architectures.DDPM_SIZE, font)
    pairs = split_pairs()[0]
    scheduler = architectures.ddpm_scheduler()
    weights = torch.ones(1000) if finish else min_snr_weight(scheduler.alphas_cumprod)

    def loss(unet: torch.nn.Module, count: int, generator: torch.Generator) -> torch.Tensor:
        clean = pictures.draw(draw_batch(pairs, count, generator))
        return noise_loss(lambda noisy, t: unet(noisy, t).sample, clean, scheduler, weights, generator)

    def preview(unet: torch.nn.Module) -> Image.Image:
        pipeline = DDPMPipeline(unet, DDIMScheduler.from_config(scheduler.config))
        pipeline.set_progress_bar_config(disable=True)
        tensors = pipeline(
            batch_size=16, num_inference_steps=50, generator=torch.Generator().manual_seed(0), output_type="pt"
        ).images
        return as_image(tensors * 2 - 1)

    return Objective(unet, loss, preview)
