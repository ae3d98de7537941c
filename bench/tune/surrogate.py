"""What time and quality untried settings are expected to have, given those that were tried."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from bench.suite.case import Case
from bench.suite.schedulers import SCHEDULERS
from bench.tune.space import words

# Second-order schedulers call the denoiser twice per step.
_TWICE = frozenset({"HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"})
# The length scales are learned again after so many further trials.
RELEARN_EVERY = 8
_SCALES = (0.1, 30.0)


def denoiser_calls(case: Case) -> int:
    """How often a call of the case calls its denoiser, as far as its scheduler says."""
    twice = SCHEDULERS[case.settings.scheduler].class_name in _TWICE
    return 2 * case.settings.steps - 1 if twice else case.settings.steps


def features_of(cases: Sequence[Case]) -> np.ndarray:
    """One row per case: numbers as logarithms or in units of their spread, names as a column each.

    A speed setting has a column of its own, so that what it does in one combination is expected in the others.
    """
    numbers = np.array(
        [
            (
                np.log(denoiser_calls(case)),
                np.log(case.settings.steps),
                case.settings.guidance or 0.0,
                np.log(case.settings.images),
                np.log(case.settings.size or 1),
            )
            for case in cases
        ]
    )
    varies = np.ptp(numbers, axis=0) > 0
    columns = [(numbers - numbers.mean(axis=0))[:, varies] / numbers.std(axis=0)[varies]]
    for axis in ("scheduler", "options", "call", "dtype"):
        of_cases = [words(case)[axis] for case in cases]
        values = sorted(set(of_cases))
        if len(values) > 1:
            columns.append(np.array([[one == value for value in values] for one in of_cases], float))
    switched = sorted({name for case in cases for name in case.settings.optimizations})
    columns.append(np.array([[name in case.settings.optimizations for name in switched] for case in cases], float))
    return np.hstack(columns)


@dataclass
class Surrogate:
    """A Gaussian process for the logarithm of the time and one for the quality.

    The kernel is that of Matérn with a length scale for each feature (Rasmussen and Williams 2006, section 5.1), so a
    feature that does not matter is ignored. Quality is modelled as the logarithm of its distance from 1, which falls
    smoothly with the steps.
    """

    cases: Mapping[str, Case]
    _features: np.ndarray = field(init=False)
    _rows: dict[str, int] = field(init=False)
    _kernels: list[object] = field(default_factory=list)
    _learned_from: int = 0

    def __post_init__(self) -> None:
        self._features = features_of(list(self.cases.values()))
        self._rows = {name: row for row, name in enumerate(self.cases)}

    def draws(
        self, known: Mapping[str, tuple[float, float]], count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws of log seconds and of quality for every case, each of shape (count, cases).

        Args:
            known: seconds and quality of the cases that were tried, at least two.
        """
        rows = [self._rows[name] for name in known]
        seconds, qualities = (np.array(values) for values in zip(*known.values(), strict=True))
        learn = not self._kernels or len(rows) >= self._learned_from + RELEARN_EVERY
        fitted = []
        for number, values in enumerate((np.log(seconds), _distance(qualities))):
            kernel = self._kernels[number] if self._kernels else self._new_kernel()
            process = GaussianProcessRegressor(
                kernel, normalize_y=True, optimizer="fmin_l_bfgs_b" if learn else None, alpha=1e-6
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound is fine
                process.fit(self._features[rows], values)
            fitted.append(process)
        if learn:
            self._kernels = [process.kernel_ for process in fitted]
            self._learned_from = len(rows)
        means, deviations = zip(*(process.predict(self._features, return_std=True) for process in fitted), strict=True)
        noise = rng.standard_normal((2, count, len(self.cases)))
        log_seconds, distances = (
            mean + deviation * one for mean, deviation, one in zip(means, deviations, noise, strict=True)
        )
        return log_seconds, 1 - np.exp(distances)

    def _new_kernel(self) -> object:
        scales = np.full(self._features.shape[1], 2.0)
        return ConstantKernel(1.0) * Matern(scales, _SCALES, nu=2.5) + WhiteKernel(1e-3, (1e-6, 0.1))


def _distance(qualities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(1 - qualities, 1e-4, None))
