"""Faults of classifier-free guidance and of the prompts that feed it."""

from __future__ import annotations

from typing import Any

import torch

from bench.faults.fault import Fault, everywhere, pull, returning, wrapped

AREA = "guidance"
PIPELINES = "StableDiffusionPipeline StableDiffusionImg2ImgPipeline StableDiffusionInpaintPipeline"


def encoding(change: Any) -> Any:
    """``change(prompt_embeds, negative_embeds)`` after ``encode_prompt``; the second is ``None`` without guidance."""

    def make(original: Any) -> Any:
        def encode_prompt(self: Any, *args: Any, **kwargs: Any) -> Any:
            return change(*original(self, *args, **kwargs))

        return encode_prompt

    return wrapped(PIPELINES, "encode_prompt", make)


def asking(change: Any) -> Any:
    """``change(arguments)`` before ``encode_prompt``, with all arguments by name."""
    names = ("prompt", "device", "num_images_per_prompt", "do_classifier_free_guidance", "negative_prompt")

    def make(original: Any) -> Any:
        def encode_prompt(self: Any, *args: Any, **kwargs: Any) -> Any:
            return original(self, **change(dict(zip(names, args, strict=False)) | kwargs))

        return encode_prompt

    return wrapped(PIPELINES, "encode_prompt", make)


def _swapped(prompts: Any, negatives: Any) -> Any:
    return (prompts, negatives) if negatives is None else (negatives, prompts)


def _shorter(prompts: Any, negatives: Any) -> Any:
    return prompts, negatives if negatives is None else negatives[:, :-1]


def _first_for_all(prompts: Any, negatives: Any) -> Any:
    return prompts, negatives if negatives is None else negatives[:1].expand_as(negatives)


def _zeros(prompts: Any, negatives: Any) -> Any:
    return prompts, negatives if negatives is None else torch.zeros_like(negatives)


def _rescaled_over_the_batch(noise_cfg: Any, noise_pred_text: Any, guidance_rescale: float = 0.0) -> Any:
    rescaled = noise_cfg * (noise_pred_text.std() / noise_cfg.std())
    return guidance_rescale * rescaled + (1 - guidance_rescale) * noise_cfg


FAULTS = (
    Fault(
        "guidance-stronger",
        AREA,
        "Guidance is 2 % too strong.",
        pull(5698),
        returning(PIPELINES, "guidance_scale", lambda self: self._guidance_scale * 1.02),
    ),
    Fault(
        "guidance-lost",
        AREA,
        "Guidance is always off.",
        pull(4193),
        returning(PIPELINES, "do_classifier_free_guidance", lambda self: False),
    ),
    Fault(
        "guidance-at-one",
        AREA,
        "Guidance is on at scale 1, where it changes nothing and doubles the batch.",
        pull(1601),
        returning(PIPELINES, "do_classifier_free_guidance", lambda self: self._guidance_scale >= 1),
    ),
    Fault(
        "guidance-swapped",
        AREA,
        "The unconditional and the conditional half of the batch are swapped.",
        pull(170, "ml-explore/mlx-swift-examples"),
        encoding(_swapped),
    ),
    Fault(
        "guidance-rescale-ignored",
        AREA,
        "guidance_rescale is ignored.",
        pull(3664),
        returning("StableDiffusionPipeline", "guidance_rescale", lambda self: 0.0),
    ),
    Fault(
        "guidance-rescale-over-batch",
        AREA,
        "guidance_rescale computes standard deviations over the batch, not per image.",
        pull(3664),
        lambda patch: everywhere(patch, "rescale_noise_cfg", _rescaled_over_the_batch),
    ),
    Fault(
        "negative-prompt-ignored",
        AREA,
        "The negative prompt is ignored.",
        pull(823),
        asking(lambda arguments: arguments | {"negative_prompt": None}),
    ),
    Fault(
        "negative-prompt-of-the-first",
        AREA,
        "All images get the negative prompt of the first one.",
        pull(4335),
        encoding(_first_for_all),
    ),
    Fault(
        "unconditional-zeros",
        AREA,
        "The unconditional embeddings are zeros, as in SDXL.",
        pull(4335),
        encoding(_zeros),
    ),
    Fault(
        "unconditional-length",
        AREA,
        "The unconditional embeddings are one token shorter than the prompt's.",
        pull(1226),
        encoding(_shorter),
    ),
)
