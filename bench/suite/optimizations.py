"""Named speed settings, and the pipelines that have them. ``bench.calls.optimizations`` switches them on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.suite.schedulers import DDPM, STABLE_DIFFUSION

OptimizationName = Literal[
    "channels-last", "attention-slicing", "fused-qkv", "vae-slicing", "compile-regional", "compile"
]

_ANY = frozenset({STABLE_DIFFUSION, DDPM})
_SD = frozenset({STABLE_DIFFUSION})


@dataclass(frozen=True)
class Optimization:
    """A speed setting.

    Attributes:
        kinds: the pipelines that have it.
        compiles: it compiles at the first call, so its effect can be checked only after that.
    """

    kinds: frozenset[str]
    compiles: bool = False


OPTIMIZATIONS: dict[str, Optimization] = {
    "channels-last": Optimization(_ANY),
    "attention-slicing": Optimization(_SD),
    "fused-qkv": Optimization(_SD),
    "vae-slicing": Optimization(_SD),
    "compile-regional": Optimization(_SD, compiles=True),
    "compile": Optimization(_ANY, compiles=True),
}


def compiles(names: tuple[str, ...]) -> bool:
    return any(OPTIMIZATIONS[name].compiles for name in names)
