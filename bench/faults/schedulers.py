"""Faults of schedulers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench.faults.fault import (
    Fault,
    Patch,
    built_with,
    commit,
    issue,
    misread,
    pull,
    returning,
    wrap,
    wrapped,
)

AREA = "schedulers"

DDIM, DDPM, PNDM, LCM = "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler"
EULER, ANCESTRAL, HEUN, LMS = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
)
DPM, SINGLE, UNIPC, DEIS = (
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
)
ALPHAS = f"{DDIM} {DDPM} {PNDM} {LCM}"
SIGMAS = f"{EULER} {ANCESTRAL} {HEUN} {LMS}"
SOLVERS = f"{DPM} {SINGLE} {UNIPC} {DEIS}"
WITH_KARRAS = f"{EULER} {HEUN} {LMS} {SOLVERS}"


def _previous_timestep_by_division(_original: Any) -> Any:
    def previous_timestep(self: Any, timestep: Any) -> Any:
        return timestep - self.config.num_train_timesteps // (
            self.num_inference_steps or self.config.num_train_timesteps
        )

    return previous_timestep


def _after(change: Any) -> Any:
    """``change(self)`` after the method."""

    def make(original: Any) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            change(self)
            return result

        return method

    return make


def _round_sigmas(scheduler: Any) -> None:
    scheduler.sigmas = scheduler.sigmas.bfloat16().float()


def _with_arguments(**changed: Any) -> Any:
    def make(original: Any) -> Any:
        return lambda self, *args, **kwargs: original(self, *args, **{**kwargs, **changed})

    return make


def _one_more_step(original: Any) -> Any:
    def set_timesteps(self: Any, num_inference_steps: int | None = None, *args: Any, **kwargs: Any) -> Any:
        count = num_inference_steps + 1 if num_inference_steps else num_inference_steps
        return original(self, count, *args, **kwargs)

    return set_timesteps


def _as_many_of_its_own(original: Any) -> Any:
    """Uses only the number of custom timesteps or sigmas."""

    def set_timesteps(self: Any, num_inference_steps: int | None = None, *args: Any, **kwargs: Any) -> Any:
        timesteps, sigmas = kwargs.pop("timesteps", None), kwargs.pop("sigmas", None)
        if timesteps is not None:
            num_inference_steps = len(timesteps)
        elif sigmas is not None:
            num_inference_steps = len(sigmas) - 1
        return original(self, num_inference_steps, *args, **kwargs)

    return set_timesteps


def _other_rho(original: Any) -> Any:
    def convert(self: Any, in_sigmas: Any, num_inference_steps: int) -> Any:
        sigmas = np.asarray(original(self, in_sigmas, num_inference_steps))
        largest, smallest = sigmas[0] ** (1 / 5), sigmas[-1] ** (1 / 5)
        return (largest + np.linspace(0, 1, num_inference_steps) * (smallest - largest)) ** 5

    return convert


def _cut_off(original: Any) -> Any:
    return lambda self, sigma, log_sigmas: np.floor(original(self, sigma, log_sigmas))


def _scaled_sde_noise(patch: Patch) -> None:
    from diffusers.schedulers import scheduling_dpmsolver_multistep as module

    wrap(patch, module, "randn_tensor", lambda original: lambda *args, **kwargs: 0.9 * original(*args, **kwargs))


def _uneven_lcm_timesteps(original: Any) -> Any:
    def set_timesteps(self: Any, num_inference_steps: int | None = None, *args: Any, **kwargs: Any) -> None:
        original(self, num_inference_steps, *args, **kwargs)
        if kwargs.get("timesteps") is None and num_inference_steps:
            known = self.config.original_inference_steps
            train = np.arange(1, known + 1) * (self.config.num_train_timesteps // known) - 1
            chosen = train[:: -(known // num_inference_steps)][:num_inference_steps]
            self.timesteps = torch.from_numpy(chosen.copy()).to(self.timesteps)

    return set_timesteps


def _noise_in_the_last_step(original: Any) -> Any:
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.num_inference_steps += 1
        try:
            return original(self, *args, **kwargs)
        finally:
            self.num_inference_steps -= 1

    return step


def _kept_history(patch: Patch) -> None:
    """State of the previous run, which a new scheduler finds because the class keeps it."""
    from diffusers import PNDMScheduler

    kept = {"counter": 0}

    def count(original: Any) -> Any:
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            kept["counter"] = self.counter
            return result

        return step

    wrap(patch, PNDMScheduler, "step", count)
    wrap(patch, PNDMScheduler, "set_timesteps", _after(lambda self: setattr(self, "counter", kept["counter"])))


def _second_derivative_at_the_first_sigma(original: Any) -> Any:
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.step_index is None or self.state_in_first_order:
            return original(self, *args, **kwargs)
        kept, index = self.sigmas, self.step_index
        self.sigmas = kept.clone()
        self.sigmas[index] = kept[index - 1]
        try:
            return original(self, *args, **kwargs)
        finally:
            self.sigmas = kept

    return step


def _threshold_as_before(_original: Any) -> Any:
    def threshold(self: Any, sample: Any) -> Any:
        largest = sample.flatten(1).abs().quantile(self.config.dynamic_thresholding_ratio, dim=1)
        largest = largest.clamp_min(self.config.sample_max_value).view(-1, *([1] * (sample.ndim - 1)))
        return sample.clamp(-largest, largest) / largest

    return threshold


def _orders_as_before(original: Any) -> Any:
    def get_order_list(self: Any, num_inference_steps: int) -> Any:
        if self.config.solver_order == 2 and num_inference_steps % 2 == 0:
            return [1, 2] * (num_inference_steps // 2)
        return original(self, num_inference_steps)

    return get_order_list


FAULTS = (
    Fault(
        "dpmpp-final-sigma",
        AREA,
        "DPM++ ends at the smallest sigma instead of 0.",
        pull(6477),
        misread(DPM, "set_timesteps step", final_sigmas_type="sigma_min"),
    ),
    Fault(
        "dpmpp-singlestep-final-sigma",
        AREA,
        "DPM++ singlestep ends at the smallest sigma instead of 0.",
        pull(6477),
        misread(SINGLE, "set_timesteps", final_sigmas_type="sigma_min"),
    ),
    Fault(
        "dpmpp-lower-order-final",
        AREA,
        "DPM++ of order 3 takes its last steps with full order.",
        pull(6953),
        misread(DPM, "step", lower_order_final=False),
    ),
    Fault(
        "dpmpp-singlestep-orders",
        AREA,
        "DPM++ singlestep of order 2 ends an even number of steps with order 2.",
        pull(6953),
        wrapped(SINGLE, "get_order_list", _orders_as_before),
    ),
    Fault(
        "dpmpp-order-lost",
        AREA,
        "DPM++ always runs with order 2.",
        pull(9104),
        built_with(DPM, solver_order=2),
    ),
    Fault(
        "dpmpp-algorithm-lost",
        AREA,
        "DPM++ is deterministic although the SDE was requested.",
        pull(2595),
        built_with(DPM, algorithm_type="dpmsolver++"),
    ),
    Fault(
        "dpmpp-sde-noise",
        AREA,
        "The noise of DPM++ SDE is 10 % too weak.",
        pull(9104),
        _scaled_sde_noise,
    ),
    Fault(
        "karras-sigmas-lost",
        AREA,
        "use_karras_sigmas is silently ignored.",
        issue(5002),
        misread(WITH_KARRAS, "set_timesteps", use_karras_sigmas=False),
    ),
    Fault(
        "karras-formula",
        AREA,
        "Karras sigmas are spaced with a different exponent.",
        pull(627),
        wrapped(WITH_KARRAS, "_convert_to_karras", _other_rho),
    ),
    Fault(
        "exponential-sigmas-lost",
        AREA,
        "use_exponential_sigmas is silently ignored.",
        issue(9951),
        misread(WITH_KARRAS, "set_timesteps", use_exponential_sigmas=False),
    ),
    Fault(
        "beta-sigmas-lost",
        AREA,
        "use_beta_sigmas is silently ignored.",
        issue(9951),
        misread(WITH_KARRAS, "set_timesteps", use_beta_sigmas=False),
    ),
    Fault(
        "lu-lambdas-lost",
        AREA,
        "use_lu_lambdas is silently ignored.",
        pull(10740),
        misread(DPM, "set_timesteps", use_lu_lambdas=False),
    ),
    Fault(
        "timesteps-cut-off",
        AREA,
        "Timesteps computed from sigmas are truncated to integers.",
        pull(13768),
        wrapped(WITH_KARRAS, "_sigma_to_t", _cut_off),
    ),
    Fault(
        "sigmas-in-bfloat16",
        AREA,
        "Sigmas are stored in bfloat16.",
        pull(6078),
        wrapped(f"{EULER} {ANCESTRAL} {DPM}", "set_timesteps", _after(_round_sigmas)),
    ),
    Fault(
        "euler-input-unscaled",
        AREA,
        "Euler does not scale the model's input.",
        pull(1019),
        wrapped(EULER, "scale_model_input", lambda _original: lambda self, sample, timestep: sample),
    ),
    Fault(
        "lms-input-unscaled",
        AREA,
        "LMS does not scale the model's input.",
        pull(1019),
        wrapped(LMS, "scale_model_input", lambda _original: lambda self, sample, timestep: sample),
    ),
    Fault(
        "first-sigma",
        AREA,
        "Euler scales its first noise by the largest sigma instead of sqrt(sigma^2 + 1).",
        pull(3947),
        returning(f"{EULER} {ANCESTRAL}", "init_noise_sigma", lambda self: self.sigmas.max()),
    ),
    Fault(
        "betas-linear",
        AREA,
        "Betas are linear, whatever the checkpoint says.",
        issue(2941),
        built_with(f"{ALPHAS} {SIGMAS} {SOLVERS}", beta_schedule="linear"),
    ),
    Fault(
        "noise-taken-for-velocity",
        AREA,
        "DDIM treats predicted noise as velocity.",
        issue(7965, "invoke-ai/InvokeAI"),
        misread(DDIM, "step", prediction_type="v_prediction"),
    ),
    Fault(
        "velocity-taken-for-noise",
        AREA,
        "Every scheduler treats predicted velocity as noise.",
        issue(7965, "invoke-ai/InvokeAI"),
        built_with(f"{ALPHAS} {SIGMAS} {SOLVERS}", prediction_type="epsilon"),
    ),
    Fault(
        "zero-snr-lost",
        AREA,
        "rescale_betas_zero_snr is silently ignored.",
        pull(3664),
        built_with(f"{DDIM} {DDPM} {LCM} {EULER} {ANCESTRAL} {DPM} {UNIPC}", rescale_betas_zero_snr=False),
    ),
    Fault(
        "steps-offset-ddim",
        AREA,
        "DDIM ignores steps_offset.",
        issue(7669),
        misread(DDIM, "set_timesteps", steps_offset=0),
    ),
    Fault(
        "steps-offset-pndm",
        AREA,
        "PNDM ignores steps_offset.",
        pull(479),
        misread(PNDM, "set_timesteps", steps_offset=0),
    ),
    Fault(
        "alpha-to-one",
        AREA,
        "The last step goes to alpha 1 although set_alpha_to_one is off.",
        pull(479),
        built_with(f"{DDIM} {PNDM}", set_alpha_to_one=True),
    ),
    Fault(
        "ddpm-previous-timestep",
        AREA,
        "DDPM steps to t - 1000 // steps instead of the next timestep.",
        pull(9384),
        wrapped(DDPM, "previous_timestep", _previous_timestep_by_division),
    ),
    Fault(
        "trailing-timesteps",
        AREA,
        "DDIM uses trailing instead of leading timesteps.",
        pull(3947),
        misread(DDIM, "set_timesteps", timestep_spacing="trailing"),
    ),
    Fault(
        "spacing-lost",
        AREA,
        "timestep_spacing is ignored: timesteps are always leading.",
        pull(3947),
        misread(f"{DDIM} {DDPM} {PNDM} {EULER} {ANCESTRAL} {DPM} {UNIPC}", "set_timesteps", timestep_spacing="leading"),
    ),
    Fault(
        "spacing-of-the-class",
        AREA,
        "Euler, Heun and DPM++ use linspace timesteps instead of the checkpoint's.",
        pull(3947),
        misread(f"{EULER} {ANCESTRAL} {HEUN} {DPM}", "set_timesteps", timestep_spacing="linspace"),
    ),
    Fault(
        "one-step-too-many",
        AREA,
        "DDPM and DDIM take one step too many.",
        pull(2076),
        wrapped(f"{DDPM} {DDIM}", "set_timesteps", _one_more_step),
    ),
    Fault(
        "custom-timesteps-ignored",
        AREA,
        "Of custom timesteps or sigmas, only the number is used.",
        pull(14011),
        wrapped(f"{DDPM} {EULER} {DPM}", "set_timesteps", _as_many_of_its_own),
    ),
    Fault(
        "eta-ignored",
        AREA,
        "DDIM ignores eta.",
        pull(171),
        wrapped(DDIM, "step", _with_arguments(eta=0.0)),
    ),
    Fault(
        "ddpm-variance-large",
        AREA,
        "DDPM adds noise with the large variance instead of the small one.",
        commit("1dc856e508"),
        misread(DDPM, "_get_variance", variance_type="fixed_large"),
    ),
    Fault(
        "ddpm-variance-as-deviation",
        AREA,
        "DDPM scales its noise by the variance instead of the standard deviation.",
        pull(2090),
        wrapped(DDPM, "_get_variance", lambda original: lambda *args, **kwargs: original(*args, **kwargs) ** 2),
    ),
    Fault(
        "latents-clipped",
        AREA,
        "DDIM and DDPM clip latents as if they were pixels.",
        pull(890),
        misread(f"{DDIM} {DDPM}", "step", clip_sample=True),
    ),
    Fault(
        "pixels-not-clipped",
        AREA,
        "DDIM and DDPM do not clip pixels between steps.",
        issue(3280),
        misread(f"{DDIM} {DDPM}", "step", clip_sample=False),
    ),
    Fault(
        "thresholding-lost",
        AREA,
        "thresholding is silently ignored.",
        pull(3003),
        misread(f"{DDIM} {DDPM} {DPM} {UNIPC}", "step", thresholding=False),
    ),
    Fault(
        "thresholding-formula",
        AREA,
        "Dynamic thresholding uses sample_max_value as the lower bound of its threshold.",
        pull(3003),
        wrapped(f"{DDIM} {DDPM} {DPM} {UNIPC}", "_threshold_sample", _threshold_as_before),
    ),
    Fault(
        "lcm-timesteps",
        AREA,
        "LCM's timesteps are not evenly spaced.",
        pull(5836),
        wrapped(LCM, "set_timesteps", _uneven_lcm_timesteps),
    ),
    Fault(
        "lcm-noise-at-the-end",
        AREA,
        "LCM adds noise in the last step too.",
        pull(5681),
        wrapped(LCM, "step", _noise_in_the_last_step),
    ),
    Fault(
        "pndm-history-kept",
        AREA,
        "PNDM's counter continues from the previous run.",
        pull(882),
        _kept_history,
    ),
    Fault(
        "pndm-runge-kutta",
        AREA,
        "PNDM starts with Runge-Kutta steps although skip_prk_steps is on.",
        pull(186),
        built_with(PNDM, skip_prk_steps=False),
    ),
    Fault(
        "heun-second-derivative",
        AREA,
        "Heun evaluates the second derivative of a step at the first sigma.",
        pull(1512),
        wrapped(HEUN, "step", _second_derivative_at_the_first_sigma),
    ),
    Fault(
        "heun-second-step-skipped",
        AREA,
        "Heun treats the second evaluation of each step as a first one.",
        pull(1512),
        returning(HEUN, "state_in_first_order", lambda self: True),
    ),
)
