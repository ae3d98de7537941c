"""Models, settings and cases, each checked when it is made."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from bench.frozen import Frozen
from bench.suite.lora import Lora
from bench.suite.optimizations import LORA, OPTIMIZATIONS, optimization
from bench.suite.scenarios import PLAIN, SCENARIOS
from bench.suite.schedulers import DDPM, SCHEDULERS, allowed_schedulers
from bench.suite.tasks import TASKS, TEXT_TO_IMAGE

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}

Dtype = Literal["float32", "bfloat16", "float16"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


def _known_optimization(name: str) -> str:
    if name not in OPTIMIZATIONS and not name.startswith(LORA):
        near = difflib.get_close_matches(name, OPTIMIZATIONS, n=3, cutoff=0)
        raise ValueError(f"unknown speed setting '{name}', nearest: {', '.join(near)}; all: bench/README.md")
    return name


# Keywords of the pipeline call that the suite sets, with the key of a case that decides each.
SET_BY_THE_SUITE = {
    "batch_size": "images",
    "generator": "seed",
    "guidance_scale": "guidance",
    "image": "task",
    "mask_image": "task",
    "num_inference_steps": "steps",
    "output_type": "scenario",
    "prompt": "prompts",
    "return_dict": "",
}
OptimizationName = Annotated[str, AfterValidator(_known_optimization)]
Value = bool | int | float | str | list[int] | list[float] | list[str]


class Model(Frozen):
    """A checkpoint under a short name.

    Attributes:
        source: ``embedded`` (in ``bench/checkpoints/<name>``), ``hub`` (``id`` and ``revision``) or ``local``
            (``path``, relative to the suite file).
        allow_pickle: accept ``.bin`` weights. Unpickling can run code, so this is off unless the entry says so.
        variant: load weights of this variant where there are some: ``fp16`` for ``model.fp16.safetensors``.
        safety_checker: load the pipeline's safety checker. Off by default: it blacks out pictures and takes time.
        loras: LoRA weights by name, which a case switches on as ``lora-<name>`` among its ``optimizations``.
    """

    name: Name
    kind: Literal["stable-diffusion", "ddpm"]
    source: Literal["embedded", "hub", "local"]
    id: str | None = None
    revision: str | None = None
    path: Path | None = None
    variant: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")
    allow_pickle: bool = False
    safety_checker: bool = False
    loras: dict[Name, Lora] = Field(default={})

    @model_validator(mode="after")
    def _source_keys(self) -> Model:
        needed = {"embedded": (), "hub": ("id",), "local": ("path",)}[self.source]
        allowed = {"embedded": (), "hub": ("id", "revision"), "local": ("path",)}[self.source]
        for key in needed:
            if getattr(self, key) is None:
                raise ValueError(f"source '{self.source}' needs the key '{key}'")
        for key in ("id", "revision", "path"):
            if getattr(self, key) is not None and key not in allowed:
                raise ValueError(f"source '{self.source}' does not take the key '{key}'")
        return self


class Settings(Frozen):
    """What a pipeline is asked for.

    Attributes:
        steps: ``num_inference_steps``, at least 1.
        guidance: classifier-free guidance scale; active above 1. ``None`` for DDPM, which has none.
        seed: image number i of the grid is drawn from the generator seed ``seed + i``.
        images: number of images in the grid.
        prompts: one per image; empty for DDPM.
        size: edge of the image in pixels; ``None`` for the checkpoint's own.
        slow: measured only on request (``-m slow``).
        options: of the scheduler, in addition to those that its name implies.
        call: further keywords of the pipeline call, such as ``clip_skip``.
        task: the pipeline that calls the weights; ``text-to-image`` is the model's own.
        scenario: the way of calling it, see ``bench.suite.scenarios``.
        sentinel: group of a sentinel case; empty for a timed one.
        tag: ends the id of a case that would otherwise have the same id as another.
        issue: the upstream report of a case that is known to raise or to be wrong.
    """

    scheduler: str
    steps: int = Field(ge=1, le=1000)
    guidance: float | None = Field(default=None, ge=0, le=100)
    dtype: Dtype = "float32"
    seed: int = Field(default=0, ge=0)
    images: int = Field(ge=1, le=64)
    prompts: tuple[str, ...] = ()
    size: int | None = Field(default=None, ge=16, multiple_of=8)
    optimizations: tuple[OptimizationName, ...] = ()
    slow: bool = False
    options: dict[str, Value] = Field(default={})
    call: dict[str, Value] = Field(default={})
    task: str = TEXT_TO_IMAGE
    scenario: str = PLAIN
    sentinel: Name | Literal[""] = ""
    tag: Name | Literal[""] = ""
    issue: str | None = None

    @field_validator("task", "scenario")
    @classmethod
    def _known_way(cls, name: str, info: ValidationInfo) -> str:
        known = TASKS if info.field_name == "task" else SCENARIOS
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0)
            raise ValueError(f"unknown {info.field_name} '{name}', nearest: {', '.join(near)}; all: bench/README.md")
        return name

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, name: str) -> str:
        if name not in SCHEDULERS:
            raise ValueError(f"'{name}' is not one of {', '.join(SCHEDULERS)}")
        return name

    @field_validator("call")
    @classmethod
    def _other_keywords(cls, call: dict[str, Any]) -> dict[str, Any]:
        for key in call:
            if key in SET_BY_THE_SUITE:
                own = SET_BY_THE_SUITE[key]
                instead = f"use the key '{own}'" if own else "remove it"
                raise ValueError(f"the suite itself sets '{key}'; {instead}")
        return call

    @model_validator(mode="after")
    def _one_size(self) -> Settings:
        both = [key for key in ("height", "width") if self.size and key in self.call]
        if both:
            raise ValueError(f"call: '{both[0]}' is set by 'size'; remove one of the two")
        return self

    @property
    def seeds(self) -> list[int]:
        return [self.seed + number for number in range(self.images)]

    def described(self) -> dict[str, Any]:
        """What determines the pictures, as JSON: the basic settings, and the special ones that are in use."""
        settings = self.model_dump(mode="json", exclude={"slow", "issue"})
        return {key: value for key, value in settings.items() if key not in _SPECIAL or value != _SPECIAL[key]}

    def recorded(self) -> dict[str, Any]:
        """As ``described``, and whether the case is measured only on request."""
        return self.described() | {"slow": self.slow}


# Settings that most cases do not change, with their defaults.
_SPECIAL = {"options": {}, "call": {}, "task": TEXT_TO_IMAGE, "scenario": PLAIN, "sentinel": "", "tag": ""}


class Case(Frozen):
    """One model with one set of settings."""

    model: Model
    settings: Settings

    @model_validator(mode="after")
    def _works_together(self) -> Case:
        kind, settings = self.model.kind, self.settings
        if settings.scheduler not in allowed_schedulers(kind):
            raise ValueError(
                f"scheduler '{settings.scheduler}' does not work in a {kind} pipeline; "
                f"allowed: {', '.join(allowed_schedulers(kind))}"
            )
        if kind == DDPM:
            for key in ("guidance", "prompts", "size"):
                if getattr(settings, key) not in (None, ()):
                    raise ValueError(f"a ddpm pipeline takes no {key}; remove the key")
        elif settings.guidance is None:
            raise ValueError("a stable-diffusion pipeline needs 'guidance'")
        elif len(settings.prompts) * settings.call.get("num_images_per_prompt", 1) != settings.images:
            raise ValueError(f"{settings.images} images need as many prompts, not {len(settings.prompts)}")
        for name in settings.optimizations:
            self._check_lora(name)
            if kind not in optimization(name).kinds:
                raise ValueError(f"optimization '{name}' does not exist in a {kind} pipeline")
        if kind not in SCENARIOS[settings.scenario].kinds or (kind == DDPM and settings.task != TEXT_TO_IMAGE):
            way = settings.scenario if settings.task == TEXT_TO_IMAGE else settings.task
            raise ValueError(f"a {kind} pipeline has no '{way}'")
        only = SCENARIOS[settings.scenario].task
        if only and settings.task != only:
            raise ValueError(f"scenario '{settings.scenario}' needs the task '{only}'")
        if not settings.sentinel and (settings.task, settings.scenario) != (TEXT_TO_IMAGE, PLAIN):
            raise ValueError("'task' and 'scenario' belong to [[sentinels]]: they cannot be timed")
        return self

    def _check_lora(self, name: str) -> None:
        if not name.startswith(LORA):
            return
        loras, scheduler = self.model.loras, self.settings.scheduler
        lora = loras.get(name.removeprefix(LORA))
        if lora is None:
            known = ", ".join(f"{LORA}{one}" for one in loras) or "none"
            raise ValueError(f"model '{self.model.name}' has no '{name}'; its LoRAs: {known}")
        if lora.schedulers and scheduler not in lora.schedulers:
            raise ValueError(f"'{name}' was made for {', '.join(lora.schedulers)}, not for {scheduler}")

    @property
    def id(self) -> str:
        """Short, stable and safe as a path: ``<model>/[<group>/]<scheduler>-s<steps>[-g<guidance>]-<dtype>[…]``."""
        settings = self.settings
        folder = f"{self.model.name}/{settings.sentinel}" if settings.sentinel else self.model.name
        parts = [settings.scheduler, f"s{settings.steps}"]
        if settings.guidance is not None:
            parts.append(f"g{settings.guidance:g}")
        parts.append(DTYPES[settings.dtype])
        if settings.size:
            parts.append(f"{settings.size}px")
        if settings.seed:
            parts.append(f"seed{settings.seed}")
        parts += [_label(key, value) for key, value in (settings.options | settings.call).items()]
        ways = (settings.task, TEXT_TO_IMAGE), (settings.scenario, PLAIN), (settings.tag, "")
        parts += [way for way, usual in ways if way != usual]
        return f"{folder}/{'-'.join([*parts, *settings.optimizations])}"

    @property
    def plain(self) -> Case:
        """The case whose pictures this one must match: itself, unless it is a sentinel that makes them differently."""
        settings = self.settings
        if not settings.sentinel or not (settings.optimizations or SCENARIOS[settings.scenario].like_plain):
            return self
        ways = {"optimizations": (), "scenario": PLAIN}
        return self.model_copy(update={"settings": settings.model_copy(update=ways)})


def _label(key: str, value: Any) -> str:
    """An option as a part of an id: ``karras-sigmas``, ``trailing``, ``solver-order3``."""
    name = _slug(key.removeprefix("use_"))
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    if isinstance(value, str):
        return _slug(value)[:24].strip("-") or f"no-{name}"
    if isinstance(value, list):
        return f"{name}-{'-'.join(_slug(str(one)) for one in value)}"
    return f"{name}{value:g}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower().replace("+", "p")).strip("-")
