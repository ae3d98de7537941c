"""What ``[tune.<model>]`` says: the values of each setting that tuning may combine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, ValidationError, field_validator

from bench.frozen import Frozen
from bench.suite.case import Case, Dtype, Model, OptimizationName, Settings, Value
from bench.suite.schedulers import DDPM, SCHEDULERS, STABLE_DIFFUSION, allowed_schedulers

# Settings that are combined, in the order in which a trial shows them.
AXES = ("scheduler", "options", "steps", "guidance", "call", "dtype", "images", "size", "optimizations")


class StepRange(Frozen):
    """A range of steps in a suite file: ``{ from = 4, to = 20, by = 2 }``, with both ends."""

    first: int = Field(alias="from", ge=1)
    last: int = Field(alias="to", le=1000)
    by: int = Field(default=1, ge=1)

    @property
    def values(self) -> tuple[int, ...]:
        return tuple(range(self.first, self.last + 1, self.by))


class Reference(Frozen):
    """The settings whose pictures the others are compared with; in float32, without optimizations."""

    scheduler: str
    steps: int = Field(ge=1, le=1000)
    options: dict[str, Value] = Field(default={})


class Tuning(Frozen):
    """The values of each setting; every combination that can work may be tried.

    Attributes:
        call: further keywords of the pipeline call, such as ``guidance_rescale``.
        images: pictures per call.
        optimizations: sets of speed settings, each switched on together.
        prompts: of the pictures that are compared; empty for DDPM.
        count: of these pictures; for a model with prompts, their number.
        seeds: picture number i is drawn with the generator seed ``seed + i``, for each of these seeds.
        start: the settings that a user has before tuning.
        reference: whose pictures the others should have.
    """

    scheduler: tuple[str, ...] = Field(min_length=1)
    steps: tuple[int, ...] = Field(min_length=1)
    options: tuple[dict[str, Value], ...] = ({},)
    guidance: tuple[float | None, ...] = (None,)
    call: tuple[dict[str, Value], ...] = ({},)
    dtype: tuple[Dtype, ...] = ("float32",)
    images: tuple[int, ...] = (4,)
    size: tuple[int | None, ...] = (None,)
    optimizations: tuple[tuple[OptimizationName, ...], ...] = ((),)
    prompts: tuple[str, ...] = ()
    count: int = Field(default=8, ge=1, le=64)
    seeds: tuple[int, ...] = (0,)
    start: Reference
    reference: Reference

    @field_validator(*AXES, "prompts", "seeds", mode="before")
    @classmethod
    def _ranges_and_single_values(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "from" in values:
            return StepRange.model_validate(values).values
        return values if isinstance(values, list | tuple) else (values,)

    @field_validator("scheduler")
    @classmethod
    def _known_schedulers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in SCHEDULERS:
                raise ValueError(f"'{name}' is not one of {', '.join(SCHEDULERS)}")
        return names

    @property
    def per_seed(self) -> int:
        """How many pictures are compared for each seed."""
        return len(self.prompts) or self.count

    @property
    def pictures(self) -> int:
        """How many pictures are compared."""
        return self.per_seed * len(self.seeds)


# What is tuned where a suite file does not say: deterministic solvers, and step counts that users try.
_STEPS = (4, 5, 6, 8, 10, 12, 16, 20, 30, 50)
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    STABLE_DIFFUSION: {
        "scheduler": ("pndm", "ddim", "euler", "dpmpp-2m", "dpmpp-2m-karras", "unipc", "deis", "heun"),
        "steps": _STEPS,
        "guidance": 7.5,
        "dtype": ("float32", "bfloat16"),
        "images": 4,
        "optimizations": ((), ("guidance-cutoff",), ("compile-regional",), ("compile-regional", "guidance-cutoff")),
        "seeds": (0, 4),
        "start": {"scheduler": "pndm", "steps": 50},
        "reference": {"scheduler": "euler", "steps": 100},
    },
    DDPM: {
        "scheduler": ("ddim", "dpmpp-2m"),
        "steps": _STEPS,
        "dtype": ("float32", "bfloat16"),
        "images": 8,
        "optimizations": ((), ("channels-last",), ("compile",)),
        "count": 8,
        "start": {"scheduler": "ddim", "steps": 50},
        "reference": {"scheduler": "ddim", "steps": 500},
    },
}


def tuning_of(model: Model, table: Mapping[str, Any], defaults: Mapping[str, Any]) -> Tuning:
    """The tuning of a model, from its table in the suite file, its defaults there, and those of its kind.

    Raises:
        ValidationError: a value is not allowed.
    """
    known = {key: defaults[key] for key in ("prompts", "guidance", "size") if key in defaults}
    return Tuning.model_validate(dict(DEFAULTS[model.kind]) | known | dict(table))


def combinations(model: Model, tuning: Tuning) -> Iterator[Case | str]:
    """Every combination of the values, as the case of its first call, or as the reason why it cannot work."""
    for values in itertools.product(*(getattr(tuning, axis) for axis in AXES)):
        yield case_or_reason(model, tuning, dict(zip(AXES, values, strict=True)))


def case_or_reason(model: Model, tuning: Tuning, settings: Mapping[str, Any]) -> Case | str:
    """A combination as the case of its first call, or why it cannot work."""
    images = settings["images"]
    if tuning.per_seed % images:
        return f"{tuning.per_seed} pictures cannot be drawn {images} at a time"
    if settings["scheduler"] not in allowed_schedulers(model.kind):
        return f"scheduler '{settings['scheduler']}' does not work in a {model.kind} pipeline"
    try:
        prompts = tuning.prompts[:images]
        return Case(model=model, settings=Settings(**{**settings, "prompts": prompts, "seed": tuning.seeds[0]}))
    except ValidationError as error:
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")


def calls_of(case: Case, tuning: Tuning) -> list[Case]:
    """The calls that draw all pictures with the settings of a case, which is the first of them.

    However many pictures a call draws, picture number i has the same prompt and the same seed.
    """
    images = case.settings.images
    calls = []
    for seed, first in itertools.product(tuning.seeds, range(0, tuning.per_seed, images)):
        changes = {"seed": seed + first, "prompts": tuning.prompts[first : first + images]}
        calls.append(case.model_copy(update={"settings": case.settings.model_copy(update=changes)}))
    return calls


def case_of(model: Model, tuning: Tuning, chosen: Reference) -> Case:
    """The reference, or the start: in float32 and without optimizations, with the first value of each other setting.

    Raises:
        ValueError: it cannot work.
    """
    settings = {axis: getattr(tuning, axis)[0] for axis in AXES}
    settings |= {"dtype": "float32", "optimizations": ()} | chosen.model_dump()
    made = case_or_reason(model, tuning, settings)
    if isinstance(made, str):
        raise ValueError(made)
    return made
