"""Faults of number formats."""

from __future__ import annotations

from typing import Any

import torch

from bench.faults.fault import Fault, Patch, issue, pull, together, wrap, wrapped

AREA = "precision"
HALF = (torch.bfloat16, torch.float16)


def _euler_step_in_the_models_type(original: Any) -> Any:
    """The step as it was before it was computed in float32; only for predicted noise."""

    def step(self: Any, model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        if model_output.dtype not in HALF or self.config.prediction_type != "epsilon":
            return original(self, model_output, timestep, sample, *args, **kwargs)
        if self.step_index is None:
            self._init_step_index(timestep)
        sigma, next_sigma = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
        denoised = sample - sigma * model_output
        moved = sample + (sample - denoised) / sigma * (next_sigma - sigma)
        self._step_index += 1
        return (moved, denoised)

    return step


def _update_in_the_models_type(original: Any) -> Any:
    def update(self: Any, outputs: Any, *args: Any, sample: Any = None, **kwargs: Any) -> Any:
        dtype = (outputs[-1] if isinstance(outputs, list) else outputs).dtype
        return original(self, outputs, *args, sample=sample.to(dtype), **kwargs)

    return update


def _rounded(function: Any) -> Any:
    """Rounds a function's first argument and its result to bfloat16, and keeps the dtype of the result."""

    def call(first: Any, *args: Any, **kwargs: Any) -> Any:
        return function(first.bfloat16().to(first.dtype), *args, **kwargs).bfloat16().to(first.dtype)

    return call


def _attention_in_bfloat16(patch: Patch) -> None:
    attention = torch.nn.functional.scaled_dot_product_attention

    def call(query: Any, key: Any, value: Any, attn_mask: Any = None, *args: Any, **kwargs: Any) -> Any:
        mask = attn_mask.bfloat16() if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
        return attention(query.bfloat16(), key.bfloat16(), value.bfloat16(), mask, *args, **kwargs).to(query.dtype)

    patch.setattr(torch.nn.functional, "scaled_dot_product_attention", call)


def _softmax_in_bfloat16(original: Any) -> Any:
    def scores(self: Any, query: Any, key: Any, attention_mask: Any = None) -> Any:
        mask = None if attention_mask is None else attention_mask.bfloat16()
        return original(self, query.bfloat16(), key.bfloat16(), mask).to(query.dtype)

    return scores


def _scores_in_bfloat16(patch: Patch) -> None:
    from diffusers.models.attention_processor import Attention

    wrap(patch, Attention, "get_attention_scores", _softmax_in_bfloat16)


def _group_norm_in_bfloat16(patch: Patch) -> None:
    patch.setattr(torch.nn.functional, "group_norm", _rounded(torch.nn.functional.group_norm))


def _timestep_embedding_in_float16(patch: Patch) -> None:
    from diffusers.models import embeddings

    wrap(
        patch,
        embeddings,
        "get_timestep_embedding",
        lambda original: lambda *args, **kwargs: original(*args, **kwargs).half().float(),
    )


def _timestep_in_bfloat16(patch: Patch) -> None:
    from diffusers.models import embeddings

    wrap(
        patch,
        embeddings,
        "get_timestep_embedding",
        lambda original: lambda timesteps, *args, **kwargs: original(timesteps.bfloat16(), *args, **kwargs),
    )


def _in_autocast(original: Any) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            result = original(self, *args, **kwargs)
        return (result[0].to(args[0].dtype), *result[1:]) if isinstance(result, tuple) else result

    return call


FAULTS = (
    Fault(
        "euler-step-in-half",
        AREA,
        "Euler computes its step in the model's half precision.",
        issue(7669),
        wrapped("EulerDiscreteScheduler", "step", _euler_step_in_the_models_type),
    ),
    Fault(
        "dpmpp-step-in-half",
        AREA,
        "DPM++ computes its step in the model's half precision.",
        pull(7097),
        together(
            wrapped("DPMSolverMultistepScheduler", "dpm_solver_first_order_update", _update_in_the_models_type),
            wrapped(
                "DPMSolverMultistepScheduler", "multistep_dpm_solver_second_order_update", _update_in_the_models_type
            ),
        ),
    ),
    Fault(
        "attention-in-bfloat16",
        AREA,
        "Attention is computed in bfloat16, whatever the model's dtype.",
        issue(183809, "pytorch/pytorch"),
        _attention_in_bfloat16,
    ),
    Fault(
        "attention-scores-in-bfloat16",
        AREA,
        "Sliced attention computes its softmax in bfloat16.",
        pull(1591),
        _scores_in_bfloat16,
    ),
    Fault(
        "group-norm-in-bfloat16",
        AREA,
        "Group norms round their input and output to bfloat16.",
        pull(182),
        _group_norm_in_bfloat16,
    ),
    Fault(
        "timestep-embedding-in-float16",
        AREA,
        "The timestep embedding is rounded to float16.",
        pull(182),
        _timestep_embedding_in_float16,
    ),
    Fault(
        "timestep-in-bfloat16",
        AREA,
        "The timestep is rounded to bfloat16, large ones to multiples of 4.",
        pull(10549),
        _timestep_in_bfloat16,
    ),
    Fault(
        "unet-in-autocast",
        AREA,
        "The UNet runs under autocast in bfloat16.",
        issue(183809, "pytorch/pytorch"),
        wrapped("UNet2DConditionModel", "forward", _in_autocast),
    ),
    Fault(
        "decoding-in-autocast",
        AREA,
        "The autoencoder decodes under autocast in bfloat16.",
        pull(4019),
        wrapped("AutoencoderKL", "decode", _in_autocast),
    ),
)
