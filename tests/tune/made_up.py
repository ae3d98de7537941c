"""A space and results that no pipeline made."""

from __future__ import annotations

import math
from typing import Any

from bench.suite.case import Case, Model
from bench.suite.schedulers import STABLE_DIFFUSION
from bench.suite.tuning import Tuning
from bench.tune.result import Tried
from bench.tune.space import Space, space_of

MODEL = Model.model_validate({"name": "m", "kind": STABLE_DIFFUSION, "source": "embedded"})
STEPS = (4, 6, 8, 12, 20, 30)
TUNING: dict[str, Any] = {
    "scheduler": ("pndm", "ddim", "euler"),
    "steps": STEPS,
    "guidance": 5.0,
    "dtype": ("float32", "bfloat16"),
    "images": 2,
    "optimizations": ((), ("channels-last",)),
    "prompts": ("a fox", "a cat"),
    "seeds": (0, 9),
    "start": {"scheduler": "pndm", "steps": 30},
    "reference": {"scheduler": "euler", "steps": 100},
}


def made_up_space(**changes: Any) -> Space:
    return space_of(MODEL, Tuning.model_validate(TUNING | changes), "cpu")


def made_up_result(of: Case, **changes: Any) -> Tried:
    """Time is linear in the steps, quality grows with them; the schedulers and the dtypes differ."""
    settings = of.settings
    factor = {"pndm": 1.3, "ddim": 1.0, "euler": 0.9}[settings.scheduler]
    seconds = 0.01 * (settings.steps + 2) * (0.6 if settings.dtype == "bfloat16" else 1.0)
    seconds *= 0.95 if settings.optimizations else 1.0
    quality = 1 - factor * math.exp(-settings.steps / 8) - (0.02 if settings.dtype == "bfloat16" else 0.0)
    found: dict[str, Any] = {
        "case": of.id,
        "settings": settings.recorded(),
        "seconds": seconds,
        "samples_s": (seconds, seconds),
        "first_call_s": 3 * seconds,
        "cost_s": 4 * seconds,
        "quality": quality,
        "ssim": (quality, quality - 0.01),
        "flip": (0.1, 0.2),
    }
    return Tried(**(found | changes))
