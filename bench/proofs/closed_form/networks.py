"""Perfect networks: what a pipeline's model would return for an input and a timestep, for each family of schedulers.

A network knows the noise schedule that it was trained with. It gets that from the configuration, computed here in
float64, and not from the scheduler's tensors, so that a scheduler with a wrong schedule does not go unnoticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.proofs.closed_form.gaussian import Level, flow, predict

VARIANCE_PRESERVING, VARIANCE_EXPLODING, EDM, FLOW, ARC = (
    "variance preserving",
    "variance exploding",
    "EDM",
    "flow",
    "arc",
)
LARGEST_RATIO = 4096.0  # of noise to data where a schedule ends in pure noise: what diffusers puts there, 2**12


def alphas_cumprod(config: Mapping[str, Any]) -> np.ndarray:
    """Signal power of each training timestep, float64, shape (num_train_timesteps,).

    Linear betas are those of DDPM (Ho et al. 2020), ``scaled_linear`` those of latent diffusion, ``squaredcos_cap_v2``
    those of Nichol and Dhariwal 2021; ``rescale_betas_zero_snr`` is algorithm 1 of Lin et al. 2023,
    ``snr_shift_scale`` divides the ratio of signal to noise power, as in CogVideoX.

    Raises:
        ValueError: another ``beta_schedule``.
    """
    count, kind = config["num_train_timesteps"], config["beta_schedule"]
    if config.get("trained_betas") is not None:
        betas = np.asarray(config["trained_betas"], dtype=np.float64)
    elif kind == "linear":
        betas = np.linspace(config["beta_start"], config["beta_end"], count)
    elif kind == "scaled_linear":
        betas = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, count) ** 2
    elif kind == "squaredcos_cap_v2":
        edges = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - edges[1:] / edges[:-1], 0.999)
    else:
        raise ValueError(f"no closed form for betas '{kind}'")
    signal = np.cumprod(1 - betas)
    shift = config.get("snr_shift_scale", 1.0)
    signal = signal / (shift + (1 - shift) * signal)
    if config.get("rescale_betas_zero_snr"):
        root = np.sqrt(signal)
        signal = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return signal


@dataclass(frozen=True)
class Network:
    """A perfect network with the calling convention of one family of schedulers.

    Attributes:
        level: noise level that a timestep means, in the space of the network's input.
        __call__: ``network(scaled_sample, timestep)``, float64 inside, in the sample's dtype outside.
    """

    level: Callable[[float], Level]
    respond: Callable[[torch.Tensor, float], torch.Tensor]

    def __call__(self, sample: torch.Tensor, timestep: torch.Tensor | float) -> torch.Tensor:
        # A UNet embeds float32 timesteps, whatever a scheduler hands out.
        time = torch.as_tensor(timestep).to(torch.float32).item()
        return self.respond(sample.to(torch.float64), time).to(sample.dtype)


def _betas_network(config: Mapping[str, Any], consistent: bool) -> Network:
    signal = alphas_cumprod(config)
    with np.errstate(divide="ignore"):
        ratios = np.log(np.minimum(np.sqrt((1 - signal) / signal), LARGEST_RATIO))
    times = np.arange(len(signal))

    def level(time: float) -> Level:
        """Between training timesteps the logarithm of the noise ratio is linear, as in k-diffusion; NaN stays NaN."""
        if math.isnan(time):
            return Level(math.nan, math.nan)
        if time == int(time) and 0 <= time < len(signal):
            power = float(signal[int(time)])
            return Level(math.sqrt(power), math.sqrt(1 - power))
        ratio = math.exp(float(np.interp(time, times, ratios)))
        alpha = 1 / math.hypot(1, ratio)
        return Level(alpha, alpha * ratio)

    def respond(sample: torch.Tensor, time: float) -> torch.Tensor:
        now = level(time)
        data = flow(sample, now, Level(1.0, 0.0)) if consistent else None
        return predict(sample, now, config["prediction_type"], data)

    return Network(level, respond)


def _edm_network(config: Mapping[str, Any]) -> Network:
    """Karras et al. 2022, table 1, column "Ours": ``D(x) = c_skip * x + c_out * F(c_in * x, log(sigma) / 4)``."""
    data = config["sigma_data"]
    sign = {"epsilon": 1, "v_prediction": -1}[config["prediction_type"]]

    def level(time: float) -> Level:
        return Level(1.0, math.exp(4 * time))

    def respond(scaled: torch.Tensor, time: float) -> torch.Tensor:
        now = level(time)
        total = now.sigma**2 + data**2
        sample = scaled * math.sqrt(total)
        skipped = data**2 / total * sample
        return (predict(sample, now, "sample") - skipped) / (sign * now.sigma * data / math.sqrt(total))

    return Network(level, respond)


def _flow_network(config: Mapping[str, Any]) -> Network:
    """Straight paths (Lipman et al. 2023; Liu et al. 2023): ``x = (1 - sigma) * x0 + sigma * noise``."""
    count = config["num_train_timesteps"]

    def level(time: float) -> Level:
        return Level(1 - time / count, time / count)

    return Network(level, lambda sample, time: predict(sample, level(time), "flow_prediction"))


def _arc_network() -> Network:
    """IPNDM's own convention: timesteps from 1 to 0 are angles in quarter turns, and the network predicts v."""

    def level(time: float) -> Level:
        return Level(max(math.cos(time * math.pi / 2), 0.0), math.sin(time * math.pi / 2))

    return Network(level, lambda sample, time: predict(sample, level(time), "v_prediction"))


def perfect_network(family: str, config: Mapping[str, Any], consistent: bool = False) -> Network:
    """The network for a scheduler with this configuration.

    Args:
        family: one of the constants of this module.
        consistent: predict the end of the ODE and not the expected data, as a consistency model does (Song et
            al. 2023, "Consistency Models"); for networks with betas only.
    """
    if family == EDM:
        return _edm_network(config)
    if family == FLOW or config.get("use_flow_sigmas"):
        return _flow_network(config)
    if family == ARC:
        return _arc_network()
    return _betas_network(config, consistent)
