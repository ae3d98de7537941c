"""Faults that cost work or memory and hardly change a pixel."""

from __future__ import annotations

from typing import Any

import torch

from bench.faults.fault import Fault, Patch, issue, pull, wrap, wrapped
from bench.faults.guidance import PIPELINES
from bench.faults.schedulers import ALPHAS, SIGMAS, SOLVERS

AREA = "work"
UNETS = "UNet2DConditionModel UNet2DModel"
VAE = "AutoencoderKL"


def _looks_the_step_up(original: Any) -> Any:
    def step(self: Any, model_output: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        self.index_for_timestep(timestep)
        return original(self, model_output, timestep, *args, **kwargs)

    return step


def _asks_for_the_timestep(original: Any) -> Any:
    def forward(self: Any, sample: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(timestep, torch.Tensor):
            timestep.reshape(-1)[0].item()
        return original(self, sample, timestep, *args, **kwargs)

    return forward


def _checks_for_nan(original: Any) -> Any:
    def step(self: Any, model_output: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.isnan(model_output).any():
            raise ValueError("The network's output is not a number.")
        return original(self, model_output, *args, **kwargs)

    return step


def _fetches_latents(original: Any) -> Any:
    def step(self: Any, model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, model_output, timestep, sample.cpu().to(sample.device), *args, **kwargs)

    return step


def _in_residual_blocks(change: Any) -> Any:
    def apply(patch: Patch) -> None:
        from diffusers.models.resnet import ResnetBlock2D

        def make(original: Any) -> Any:
            return lambda self, input_tensor, *args, **kwargs: original(self, change(input_tensor), *args, **kwargs)

        wrap(patch, ResnetBlock2D, "forward", make)

    return apply


def _image_by_image(original: Any) -> Any:
    """One call for each image of the batch."""

    def forward(self: Any, sample: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        count = sample.shape[0]
        if count == 1:
            return original(self, sample, timestep, *args, **kwargs)

        def part(value: Any, number: int) -> Any:
            whole = isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == count
            return value[number : number + 1] if whole else value

        parts = [
            original(
                self,
                sample[number : number + 1],
                timestep,
                *(part(value, number) for value in args),
                **{key: part(value, number) for key, value in kwargs.items()},
            )
            for number in range(count)
        ]
        if isinstance(parts[0], tuple):
            return (torch.cat([one[0] for one in parts]),)
        return type(parts[0])(sample=torch.cat([one.sample for one in parts]))

    return forward


def _two_halves(patch: Patch) -> None:
    """With guidance the UNet is called twice, through ``self(…)`` so that each call is counted."""
    from diffusers import UNet2DConditionModel

    halves: list[None] = []

    def make(original: Any) -> Any:
        def forward(self: Any, sample: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
            states = kwargs.get("encoder_hidden_states")
            if halves or states is None or sample.shape[0] % 2 or kwargs.get("return_dict", True):
                return original(self, sample, timestep, *args, **kwargs)
            halves.append(None)
            try:
                both = [
                    self(one, timestep, *args, **{**kwargs, "encoder_hidden_states": state})[0]
                    for one, state in zip(sample.chunk(2), states.chunk(2), strict=True)
                ]
            finally:
                halves.clear()
            return (torch.cat(both),)

        return forward

    wrap(patch, UNet2DConditionModel, "forward", make)


def _encodes_in_every_step(patch: Patch) -> None:
    """Patches ``interrupt``, which pipelines read once per step."""
    import diffusers

    for name in PIPELINES.split():
        owner = getattr(diffusers, name)

        def make(original: Any) -> Any:
            def encode_prompt(self: Any, *args: Any, **kwargs: Any) -> Any:
                self.__dict__["_encoded"] = (original, args, kwargs)
                return original(self, *args, **kwargs)

            return encode_prompt

        def interrupt(self: Any) -> bool:
            encode, args, kwargs = self.__dict__["_encoded"]
            encode(self, *args, **kwargs)
            return bool(self._interrupt)

        wrap(patch, owner, "encode_prompt", make)
        patch.setattr(owner, "interrupt", property(interrupt))


def _sliced_attention_whole(patch: Patch) -> None:
    from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor

    whole = AttnProcessor()
    patch.setattr(SlicedAttnProcessor, "__call__", lambda self, *args, **kwargs: whole(*args, **kwargs))


def _eager_attention(patch: Patch) -> None:
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    eager = AttnProcessor()
    patch.setattr(AttnProcessor2_0, "__call__", lambda self, *args, **kwargs: eager(*args, **kwargs))


def _with_flag_off(flag: str) -> Any:
    def make(original: Any) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            kept = getattr(self, flag)
            setattr(self, flag, False)
            try:
                return original(self, *args, **kwargs)
            finally:
                setattr(self, flag, kept)

        return method

    return make


def _twice(original: Any) -> Any:
    def decode(self: Any, *args: Any, **kwargs: Any) -> Any:
        original(self, *args, **kwargs)
        return original(self, *args, **kwargs)

    return decode


def _group_norm_in_float32(patch: Patch) -> None:
    group_norm = torch.nn.functional.group_norm

    def call(values: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
        weight, bias = (None if one is None else one.float() for one in (weight, bias))
        return group_norm(values.float(), groups, weight, bias, eps).to(values.dtype)

    patch.setattr(torch.nn.functional, "group_norm", call)


def _keeps_every_step(original: Any) -> Any:
    """The outputs of all steps stay alive as long as the scheduler."""

    def step(self: Any, model_output: Any, *args: Any, **kwargs: Any) -> Any:
        kept = self.__dict__.setdefault("_all_outputs", [])
        kept.append(model_output)
        return original(self, model_output, *args, **kwargs)

    return step


EVERY_STEP = f"{ALPHAS} {SIGMAS} {SOLVERS}"

FAULTS = (
    Fault(
        "step-looked-up",
        AREA,
        "Euler, DPM++ and their relatives look the timestep up in every step.",
        pull(4347),
        wrapped(f"{SIGMAS} {SOLVERS}", "step", _looks_the_step_up),
    ),
    Fault(
        "timestep-fetched",
        AREA,
        "The UNet reads the timestep's value on the host in every call.",
        pull(11696),
        wrapped(UNETS, "forward", _asks_for_the_timestep),
    ),
    Fault(
        "nan-check",
        AREA,
        "Every step checks for NaN.",
        pull(11818),
        wrapped(EVERY_STEP, "step", _checks_for_nan),
    ),
    Fault(
        "latents-fetched",
        AREA,
        "Every step copies the latents to the CPU.",
        pull(13564),
        wrapped(EVERY_STEP, "step", _fetches_latents),
    ),
    Fault(
        "residual-blocks-contiguous",
        AREA,
        "Residual blocks make their input contiguous.",
        issue(12975),
        _in_residual_blocks(lambda values: values.contiguous()),
    ),
    Fault(
        "residual-blocks-copy",
        AREA,
        "Residual blocks copy their input.",
        issue(12975),
        _in_residual_blocks(lambda values: values.clone()),
    ),
    Fault(
        "unet-image-by-image",
        AREA,
        "The UNet processes the images of a batch one by one.",
        pull(168),
        wrapped(UNETS, "forward", _image_by_image),
    ),
    Fault("unet-called-twice", AREA, "The UNet is called twice a step for guidance.", pull(168), _two_halves),
    Fault(
        "prompt-encoded-in-every-step",
        AREA,
        "The prompt is encoded again in every step.",
        issue(3950),
        _encodes_in_every_step,
    ),
    Fault(
        "sliced-attention-whole",
        AREA,
        "Attention slicing has no effect.",
        pull(563),
        _sliced_attention_whole,
    ),
    Fault(
        "eager-attention",
        AREA,
        "Attention falls back to separate matrix products and a softmax.",
        pull(12892),
        _eager_attention,
    ),
    Fault(
        "vae-slicing-whole",
        AREA,
        "Slicing of the autoencoder has no effect.",
        pull(9342),
        wrapped(VAE, "decode", _with_flag_off("use_slicing")),
    ),
    Fault(
        "vae-tiling-whole",
        AREA,
        "Tiling of the autoencoder has no effect.",
        pull(9342),
        wrapped(VAE, "decode", _with_flag_off("use_tiling")),
    ),
    Fault("decoded-twice", AREA, "The latents are decoded twice.", pull(6850), wrapped(VAE, "decode", _twice)),
    Fault(
        "group-norm-in-float32",
        AREA,
        "In half precision, group norms compute in float32 and convert twice.",
        pull(4019),
        _group_norm_in_float32,
    ),
    Fault(
        "outputs-kept",
        AREA,
        "The scheduler keeps the network's output of every step.",
        pull(882),
        wrapped(EVERY_STEP, "step", _keeps_every_step),
    ),
)
