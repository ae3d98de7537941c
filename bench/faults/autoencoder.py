"""Faults of the autoencoder."""

from __future__ import annotations

from typing import Any

import torch

from bench.faults.fault import Fault, Patch, built_with, pull, together, wrap, wrapped

AREA = "autoencoder"
VAE = "AutoencoderKL"


def _decoding(change: Any) -> Any:
    """``change(self, latents)`` before ``decode``."""

    def make(original: Any) -> Any:
        def decode(self: Any, z: Any, *args: Any, **kwargs: Any) -> Any:
            return original(self, change(self, z), *args, **kwargs)

        return decode

    return wrapped(VAE, "decode", make)


def _without(layer: str) -> Any:
    def make(original: Any) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            kept = getattr(self, layer)
            setattr(self, layer, None)
            try:
                return original(self, *args, **kwargs)
            finally:
                setattr(self, layer, kept)

        return method

    return make


def _first_slice_for_all(original: Any) -> Any:
    def decode(self: Any, z: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, z[:1].expand_as(z) if self.use_slicing else z, *args, **kwargs)

    return decode


def _never_cut(_original: Any) -> Any:
    return lambda self, a, b, blend_extent: b


def _blended_too_far(original: Any) -> Any:
    """Blends over half of the extent."""

    def blend(self: Any, a: Any, b: Any, blend_extent: int) -> Any:
        return original(self, a, b, blend_extent // 2)

    return blend


def _of_distribution(name: str, make: Any) -> Any:
    def apply(patch: Patch) -> None:
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        wrap(patch, DiagonalGaussianDistribution, name, make)

    return apply


def _without_generator(original: Any) -> Any:
    return lambda self, generator=None: original(self, None)


def _mean(_original: Any) -> Any:
    return lambda self, generator=None: self.mode()


def _variance_for_deviation(original: Any) -> Any:
    def sample(self: Any, generator: Any = None) -> Any:
        kept, self.std = self.std, torch.exp(self.logvar)
        try:
            return original(self, generator)
        finally:
            self.std = kept

    return sample


def _divided_by_scaling_factor(original: Any) -> Any:
    """Cancels the later multiplication by ``scaling_factor``."""

    def encode(self: Any, *args: Any, **kwargs: Any) -> Any:
        encoded = original(self, *args, **kwargs)
        distribution = encoded[0] if isinstance(encoded, tuple) else encoded.latent_dist
        distribution.mean = distribution.mean / self.config.scaling_factor
        distribution.std = distribution.std / self.config.scaling_factor
        return encoded

    return encode


FAULTS = (
    Fault(
        "scaling-factor-forgotten",
        AREA,
        "Latents are not divided by scaling_factor before decoding.",
        pull(1860),
        _decoding(lambda self, z: z * self.config.scaling_factor),
    ),
    Fault(
        "scaling-factor-of-the-class",
        AREA,
        "scaling_factor is 0.18215 whatever the checkpoint says.",
        pull(1860),
        built_with(VAE, scaling_factor=0.18215),
        at_load=True,
    ),
    Fault(
        "scaling-factor-rounded",
        AREA,
        "scaling_factor is rounded to two digits.",
        pull(4682),
        _decoding(lambda self, z: z * (self.config.scaling_factor / round(self.config.scaling_factor, 2))),
    ),
    Fault(
        "post-quant-conv-skipped",
        AREA,
        "Latents are decoded without post_quant_conv.",
        pull(4682),
        wrapped(VAE, "_decode", _without("post_quant_conv")),
    ),
    Fault(
        "quant-conv-skipped",
        AREA,
        "Images are encoded without quant_conv.",
        pull(4682),
        wrapped(VAE, "_encode", _without("quant_conv")),
    ),
    Fault(
        "tiles-not-blended",
        AREA,
        "Tiles of a large picture are not blended.",
        pull(3384),
        together(wrapped(VAE, "blend_v", _never_cut), wrapped(VAE, "blend_h", _never_cut)),
    ),
    Fault(
        "tiles-blended-wrongly",
        AREA,
        "Tiles of a large picture are blended over half of their overlap.",
        pull(11305),
        together(wrapped(VAE, "blend_v", _blended_too_far), wrapped(VAE, "blend_h", _blended_too_far)),
    ),
    Fault(
        "slicing-decodes-the-first",
        AREA,
        "With slicing, every image is a copy of the first one.",
        pull(12343),
        wrapped(VAE, "decode", _first_slice_for_all),
    ),
    Fault(
        "encoding-ignores-generator",
        AREA,
        "The latents of an image are drawn without the caller's generator.",
        pull(9981),
        _of_distribution("sample", _without_generator),
    ),
    Fault(
        "encoding-takes-the-mean",
        AREA,
        "The latents of an image are the mean of its distribution instead of a sample.",
        pull(5880),
        _of_distribution("sample", _mean),
    ),
    Fault(
        "encoding-variance",
        AREA,
        "The latents of an image are drawn with the variance instead of the standard deviation.",
        pull(531, "mindspore-lab/mindone"),
        _of_distribution("sample", _variance_for_deviation),
    ),
    Fault(
        "encoding-unscaled",
        AREA,
        "The latents of an image are not multiplied by scaling_factor.",
        pull(1860),
        wrapped(VAE, "encode", _divided_by_scaling_factor),
    ),
)
