"""Faults of image-to-image and inpainting."""

from __future__ import annotations

from typing import Any

import torch

from bench.faults.fault import Fault, Patch, pull, wrap, wrapped

AREA = "image to image"
IMG2IMG, INPAINT = "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"
BOTH = f"{IMG2IMG} {INPAINT}"
WITH_ALPHAS = "DDIMScheduler DDPMScheduler PNDMScheduler"


def _one_step_more(original: Any) -> Any:
    def get_timesteps(self: Any, num_inference_steps: int, strength: float, device: Any) -> Any:
        wanted = min(int(num_inference_steps * strength) + 1, num_inference_steps)
        return original(self, num_inference_steps, (wanted + 1e-6) / num_inference_steps, device)

    return get_timesteps


def _full_strength(original: Any) -> Any:
    return lambda self, num_inference_steps, strength, device: original(self, num_inference_steps, 1.0, device)


def _order_forgotten(original: Any) -> Any:
    """Second-order schedulers have two timesteps per step, but only the steps are counted."""

    def get_timesteps(self: Any, num_inference_steps: int, strength: float, device: Any) -> Any:
        _, count = original(self, num_inference_steps, strength, device)
        start = num_inference_steps - count
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(start)
        return self.scheduler.timesteps[start:], count

    return get_timesteps


def _noise_of_the_first_timestep(original: Any) -> Any:
    def prepare(self: Any, image: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        self.scheduler.set_begin_index(0) if hasattr(self.scheduler, "set_begin_index") else None
        first = self.scheduler.timesteps[:1].expand_as(timestep)
        return original(self, image, first, *args, **kwargs)

    return prepare


def _variance_for_deviation(_original: Any) -> Any:
    def add_noise(self: Any, original_samples: Any, noise: Any, timesteps: Any) -> Any:
        alphas = self.alphas_cumprod.to(original_samples)[timesteps].flatten()
        alphas = alphas.view(-1, *([1] * (original_samples.dim() - 1)))
        return alphas**0.5 * original_samples + (1 - alphas) * noise

    return add_noise


def _alpha_forgotten(_original: Any) -> Any:
    def add_noise(self: Any, original_samples: Any, noise: Any, timesteps: Any) -> Any:
        index = self.begin_index if self.begin_index is not None else self.index_for_timestep(timesteps[0])
        return original_samples + noise * self.sigmas[index]

    return add_noise


def _blended_at_this_timestep(original: Any) -> Any:
    """The kept part of the image gets the noise of the previous step."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        add_noise = self.scheduler.add_noise

        def add_noise_of_before(samples: Any, noise: Any, timesteps: Any) -> Any:
            known = self.scheduler.timesteps.tolist()
            if timesteps.numel() == 1 and known.index(timesteps.item()) > 0:
                timesteps = torch.tensor([known[known.index(timesteps.item()) - 1]])
            return add_noise(samples, noise, timesteps)

        self.scheduler.add_noise = add_noise_of_before
        try:
            return original(self, *args, **kwargs)
        finally:
            del self.scheduler.add_noise

    return call


def _mask(change: Any) -> Any:
    def make(original: Any) -> Any:
        def prepare(self: Any, mask: Any, *args: Any, **kwargs: Any) -> Any:
            return original(self, change(mask), *args, **kwargs)

        return prepare

    return wrapped(INPAINT, "prepare_mask_latents", make)


def _smooth_mask(original: Any) -> Any:
    def prepare(self: Any, mask: Any, *args: Any, **kwargs: Any) -> Any:
        size = [edge // self.vae_scale_factor for edge in mask.shape[-2:]]
        small = torch.nn.functional.interpolate(mask, size=size, mode="bilinear", antialias=True)
        return original(self, small, *args, **kwargs)

    return prepare


def _mask_in_pixels(original: Any) -> Any:
    def prepare(self: Any, mask: Any, *args: Any, **kwargs: Any) -> Any:
        guided = args[-1] if args else kwargs.get("do_classifier_free_guidance")
        _, masked = original(self, mask, *args, **kwargs)
        return torch.cat([mask] * 2) if guided else mask, masked

    return prepare


def _scaled_once_more(original: Any) -> Any:
    def prepare(self: Any, *args: Any, **kwargs: Any) -> Any:
        latents, *others = original(self, *args, **kwargs)
        strongest = kwargs.get("is_strength_max", True)
        return (latents if strongest else latents * self.scheduler.init_noise_sigma, *others)

    return prepare


def _nothing_kept(patch: Patch) -> None:
    """Skips the blend after the last step: the scheduler's step sets the mask to ones."""
    from diffusers import StableDiffusionInpaintPipeline

    def make(original: Any) -> Any:
        def prepare(self: Any, *args: Any, **kwargs: Any) -> Any:
            mask, masked = original(self, *args, **kwargs)
            step, last = self.scheduler.step, self.scheduler.timesteps[-1]

            def step_and_open_the_mask(output: Any, timestep: Any, *rest: Any, **more: Any) -> Any:
                if timestep == last:
                    mask.fill_(1)
                return step(output, timestep, *rest, **more)

            self.scheduler.step = step_and_open_the_mask
            return mask, masked

        return prepare

    wrap(patch, StableDiffusionInpaintPipeline, "prepare_mask_latents", make)


FAULTS = (
    Fault(
        "strength-one-step-more",
        AREA,
        "strength gives one step too many.",
        pull(3128),
        wrapped(BOTH, "get_timesteps", _one_step_more),
    ),
    Fault("strength-ignored", AREA, "strength is ignored.", pull(3532), wrapped(BOTH, "get_timesteps", _full_strength)),
    Fault(
        "strength-of-second-order",
        AREA,
        "With second-order schedulers, strength counts half steps.",
        pull(3128),
        wrapped(BOTH, "get_timesteps", _order_forgotten),
    ),
    Fault(
        "image-noised-as-at-the-start",
        AREA,
        "The image gets the noise of the first timestep, not of the one that strength selects.",
        pull(7386),
        wrapped(IMG2IMG, "prepare_latents", _noise_of_the_first_timestep),
    ),
    Fault(
        "image-noise-variance",
        AREA,
        "DDIM, DDPM and PNDM add noise scaled by the variance instead of the standard deviation.",
        pull(648),
        wrapped(WITH_ALPHAS, "add_noise", _variance_for_deviation),
    ),
    Fault(
        "image-noise-alpha",
        AREA,
        "DPM++ adds noise to an image without scaling the image down.",
        pull(5158),
        wrapped("DPMSolverMultistepScheduler", "add_noise", _alpha_forgotten),
    ),
    Fault("mask-inverted", AREA, "The mask is inverted.", pull(1516), _mask(lambda mask: 1 - mask)),
    Fault(
        "mask-smoothed",
        AREA,
        "The mask is downsampled bilinearly instead of by nearest neighbour.",
        pull(2147),
        wrapped(INPAINT, "prepare_mask_latents", _smooth_mask),
    ),
    Fault(
        "mask-not-resized",
        AREA,
        "The mask is not resized to the size of the latents.",
        pull(2147),
        wrapped(INPAINT, "prepare_mask_latents", _mask_in_pixels),
    ),
    Fault(
        "kept-part-noised-too-much",
        AREA,
        "The kept part of an image is blended in with the noise of the previous step.",
        pull(3749),
        wrapped(INPAINT, "__call__", _blended_at_this_timestep),
    ),
    Fault(
        "kept-part-not-blended-at-the-end",
        AREA,
        "The kept part of an image is not blended in after the last step.",
        pull(3749),
        _nothing_kept,
    ),
    Fault(
        "inpainting-scaled-twice",
        AREA,
        "The noised image is multiplied by the first sigma although its noise is scaled already.",
        pull(3532),
        wrapped(INPAINT, "prepare_latents", _scaled_once_more),
    ),
)
