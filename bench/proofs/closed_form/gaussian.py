"""Gaussian data: its best denoiser and the solution of its probability-flow ODE, both in closed form.

Data ``x0`` is normal with mean ``m`` and standard deviation ``s``, which differ by channel. A sample at noise level
``(alpha, sigma)`` is ``x = alpha * x0 + sigma * noise``, so it is normal with mean ``alpha * m`` and variance
``alpha**2 * s**2 + sigma**2``. Everything here is float64, whatever dtype a scheduler works in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Channels differ, so that errors of one cannot cancel against those of another.
MEAN = torch.tensor((-0.6, 0.3, 1.1, -1.5), dtype=torch.float64).reshape(1, 4, 1, 1)
STD = torch.tensor((0.3, 0.6, 1.2, 2.0), dtype=torch.float64).reshape(1, 4, 1, 1)


@dataclass(frozen=True)
class Level:
    """Noise level of a sample: ``alpha`` times data plus ``sigma`` times standard normal noise; both at least 0."""

    alpha: float
    sigma: float

    @property
    def variance_exploding(self) -> Level:
        """The same ratio of noise to data, for samples that are divided by ``alpha``."""
        return Level(1.0, self.sigma / self.alpha)


def spread(level: Level) -> torch.Tensor:
    """Standard deviation of samples at this level, per channel: shape (1, 4, 1, 1)."""
    return (level.alpha**2 * STD**2 + level.sigma**2).sqrt()


def denoise(sample: torch.Tensor, level: Level) -> torch.Tensor:
    """Expected data given a sample (Tweedie's formula); this is what a perfectly trained network knows.

    Args:
        sample: shape (n, 4, 1, 1).
    """
    if level.sigma == 0:
        return sample / level.alpha
    return MEAN + level.alpha * STD**2 / spread(level) ** 2 * (sample - level.alpha * MEAN)


def flow(sample: torch.Tensor, start: Level, end: Level) -> torch.Tensor:
    """Where the probability-flow ODE carries a sample from one level to another.

    The ODE (Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021, eq. 13;
    Karras et al. 2022, eq. 1) keeps ``(x - alpha * m) / sqrt(alpha**2 * s**2 + sigma**2)``: every sample stays at its
    quantile.
    """
    return end.alpha * MEAN + spread(end) * (sample - start.alpha * MEAN) / spread(start)


def predict(sample: torch.Tensor, level: Level, prediction_type: str, data: torch.Tensor | None = None) -> torch.Tensor:
    """What a perfect network of this kind returns for a sample.

    Args:
        prediction_type: ``epsilon`` (Ho et al. 2020), ``v_prediction`` (Salimans and Ho 2022:
            ``alpha * noise - sigma * x0``), ``sample`` (``x0``) or ``flow_prediction`` (``noise - x0``).
        data: the ``x0`` that the network assumes; the expected data by default.

    Raises:
        ValueError: another prediction type.
    """
    data = denoise(sample, level) if data is None else data
    noise = (sample - level.alpha * data) / level.sigma
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return level.alpha * noise - level.sigma * data
    if prediction_type == "sample":
        return data
    if prediction_type == "flow_prediction":
        return noise - data
    raise ValueError(f"no network predicts '{prediction_type}'")
