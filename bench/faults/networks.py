"""Faults of the UNet."""

from __future__ import annotations

from typing import Any

import torch

from bench.faults.fault import Fault, Patch, built_with, commit, pull, wrap

AREA = "UNet"
UNET = "UNet2DConditionModel"


def _smooth_upsampling(patch: Patch) -> None:
    def make(original: Any) -> Any:
        def interpolate(values: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("mode") == "nearest" and values.dim() == 4 and values.shape[1] > 4:
                kwargs["mode"] = "bilinear"
            return original(values, *args, **kwargs)

        return interpolate

    wrap(patch, torch.nn.functional, "interpolate", make)


def _attention_scale(patch: Patch) -> None:
    def make(original: Any) -> Any:
        def attention(query: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
            return original(query, key, *args, **{**kwargs, "scale": 1.1 * query.shape[-1] ** -0.5})

        return attention

    wrap(patch, torch.nn.functional, "scaled_dot_product_attention", make)


def _activated_twice(patch: Patch) -> None:
    from diffusers.models.resnet import ResnetBlock2D

    def make(original: Any) -> Any:
        def forward(self: Any, input_tensor: Any, temb: Any, *args: Any, **kwargs: Any) -> Any:
            return original(self, input_tensor, None if temb is None else torch.nn.functional.silu(temb), *args)

        return forward

    wrap(patch, ResnetBlock2D, "forward", make)


FAULTS = (
    Fault(
        "upsampling-filter",
        AREA,
        "Feature maps are upsampled bilinearly instead of by nearest neighbour.",
        pull(1006),
        _smooth_upsampling,
    ),
    Fault(
        "attention-scale",
        AREA,
        "Attention scores are 10 % too large.",
        pull(4154),
        _attention_scale,
    ),
    Fault(
        "attention-heads",
        AREA,
        "The number of attention heads is halved, with the same weights.",
        pull(4154),
        built_with(UNET, attention_head_dim=4),
        at_load=True,
    ),
    Fault(
        "sine-and-cosine-swapped",
        AREA,
        "Sines and cosines of the timestep embedding are swapped.",
        commit("02a76c2c81"),
        built_with(UNET, flip_sin_to_cos=False),
        at_load=True,
    ),
    Fault(
        "timestep-frequencies",
        AREA,
        "The frequencies of the timestep embedding are shifted by one.",
        commit("02a76c2c81"),
        built_with(UNET, freq_shift=1),
        at_load=True,
    ),
    Fault(
        "downsampling-padding",
        AREA,
        "Feature maps are padded on one side only before downsampling.",
        pull(156),
        built_with(UNET, downsample_padding=0),
        at_load=True,
    ),
    Fault(
        "timestep-activated-twice",
        AREA,
        "The activation of the timestep embedding is applied twice.",
        pull(3607),
        _activated_twice,
    ),
)
