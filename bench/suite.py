"""From ``suite.toml`` to models and cases: what is measured, checked before anything runs."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench.optimizations import OPTIMIZATIONS, Optimization
from bench.schedulers import DDPM, SCHEDULERS, STABLE_DIFFUSION, allowed_schedulers

SUITE_FILE = Path(__file__).with_name("suite.toml")
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
DEFAULT_GUIDANCE = 7.5

Dtype = Literal["float32", "bfloat16", "float16"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class SuiteError(Exception):
    """A mistake in a suite file; one sentence with file, key and what is allowed."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(_Frozen):
    """A checkpoint under a short name.

    Attributes:
        source: ``embedded`` (in ``bench/checkpoints/<name>``), ``hub`` (``id`` and ``revision``) or ``local``
            (``path``, relative to the suite file).
        allow_pickle: accept ``.bin`` weights. Unpickling can run code, so this is off unless the entry says so.
        safety_checker: load the pipeline's safety checker. Off: it would black out pictures and add to the time.
    """

    name: Name
    kind: Literal["stable-diffusion", "ddpm"]
    source: Literal["embedded", "hub", "local"]
    id: str | None = None
    revision: str | None = None
    path: Path | None = None
    allow_pickle: bool = False
    safety_checker: bool = False

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


class Settings(_Frozen):
    """What a pipeline is asked for.

    Attributes:
        steps: ``num_inference_steps``, at least 1.
        guidance: classifier-free guidance scale; active above 1. ``None`` for DDPM, which has none.
        seed: image number i of the grid is drawn from the generator seed ``seed + i``.
        images: number of images in the grid.
        prompts: one per image; empty for DDPM.
        size: edge of the image in pixels; ``None`` for the checkpoint's own.
        slow: measured only on request (``-m slow``).
    """

    scheduler: str
    steps: int = Field(ge=1, le=1000)
    guidance: float | None = Field(default=None, ge=0, le=100)
    dtype: Dtype = "float32"
    seed: int = Field(default=0, ge=0)
    images: int = Field(ge=1, le=64)
    prompts: tuple[str, ...] = ()
    size: int | None = Field(default=None, ge=16, multiple_of=8)
    optimizations: tuple[Optimization, ...] = ()
    slow: bool = False

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, name: str) -> str:
        if name not in SCHEDULERS:
            raise ValueError(f"unknown scheduler '{name}'; known: {', '.join(SCHEDULERS)}")
        return name

    @property
    def seeds(self) -> list[int]:
        return [self.seed + number for number in range(self.images)]


class Case(_Frozen):
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
        elif len(settings.prompts) != settings.images:
            raise ValueError(f"{settings.images} images need as many prompts, not {len(settings.prompts)}")
        for name in settings.optimizations:
            if kind not in OPTIMIZATIONS[name].kinds:
                raise ValueError(f"optimization '{name}' does not exist in a {kind} pipeline")
        return self

    @property
    def id(self) -> str:
        """Short, stable and safe as a path: ``<model>/<scheduler>-s<steps>[-g<guidance>]-<dtype>[…]``."""
        settings = self.settings
        parts = [settings.scheduler, f"s{settings.steps}"]
        if settings.guidance is not None:
            parts.append(f"g{settings.guidance:g}")
        parts.append(DTYPES[settings.dtype])
        if settings.size:
            parts.append(f"{settings.size}px")
        if settings.seed:
            parts.append(f"seed{settings.seed}")
        return f"{self.model.name}/{'-'.join([*parts, *settings.optimizations])}"


class Suite(_Frozen):
    """The models and the cases of one suite file, cases sorted so that each pipeline is loaded once."""

    file: Path
    models: tuple[Model, ...]
    cases: tuple[Case, ...]


_SWEPT = ("scheduler", "steps", "guidance", "dtype", "seed", "size")


def _sweep(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations of the keys that hold a list; ``optimizations`` and ``prompts`` are lists by nature."""
    axes = {key: table[key] for key in _SWEPT if isinstance(table.get(key), list)}
    for values in itertools.product(*axes.values()):
        yield table | dict(zip(axes, values, strict=True))


def _sentence(error: ValidationError, keys: Iterable[str]) -> str:
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key is also missing
    key = ".".join(str(part) for part in first["loc"])
    message = re.sub(r"^Value error, ", "", first["msg"])
    if first["type"] == "extra_forbidden":
        message = f"unknown key; allowed: {', '.join(keys)}"
    elif first["type"] == "missing":
        message = "missing"
    elif first["type"] != "value_error":
        message = f"{message}, not {first['input']!r}"
    return f"{key}: {message}" if key else message


def _section(document: dict[str, Any], key: str, kind: type, file: Path) -> Any:
    value = document.get(key)
    if not isinstance(value, kind) or not value:
        raise SuiteError(f"{file}: [{key}] is missing or empty; a suite has models and cases.")
    return value


def read_suite(file: Path = SUITE_FILE) -> Suite:
    """Reads and checks a suite file.

    Raises:
        SuiteError: the file is missing, is no TOML, or asks for something that cannot work.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"{file}: cannot be read ({error.strerror}); pass an existing file to --suite.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{file}: not valid TOML: {error}.") from None
    unknown = set(document) - {"models", "cases"}
    if unknown:
        raise SuiteError(f"{file}: unknown key '{min(unknown)}'; allowed: models, cases.")

    models: dict[str, Model] = {}
    defaults: dict[str, dict[str, Any]] = {}
    for name, table in _section(document, "models", dict, file).items():
        if not isinstance(table, dict):
            raise SuiteError(f"{file}: models.{name}: a table is needed ([models.{name}]).")
        entry = dict(table)
        defaults[name] = entry.pop("defaults", {})
        if not isinstance(defaults[name], dict):
            raise SuiteError(f"{file}: models.{name}: defaults: a table is needed ([models.{name}.defaults]).")
        if "name" in entry:
            raise SuiteError(f"{file}: models.{name}: name: the table's own name is the model's; remove the key.")
        try:
            models[name] = Model(name=name, **entry)
        except ValidationError as error:
            keys = [key for key in Model.model_fields if key != "name"]
            raise SuiteError(f"{file}: models.{name}: {_sentence(error, [*keys, 'defaults'])}.") from None

    cases: dict[str, Case] = {}
    for number, table in enumerate(_section(document, "cases", list, file), start=1):
        place = f"{file}: [[cases]] number {number}"
        if not isinstance(table, dict):
            raise SuiteError(f"{place}: a table is needed ([[cases]]), not {table!r}.")
        chosen = table.get("model")
        if not isinstance(chosen, str) or chosen not in models:
            raise SuiteError(f"{place}: model: unknown model {chosen!r}; known: {', '.join(models)}.")
        sweep = defaults[chosen] | {key: value for key, value in table.items() if key != "model"}
        empty = [key for key in _SWEPT if sweep.get(key) == []]
        if empty:
            raise SuiteError(f"{place}: {empty[0]}: an empty list makes no case; give a value.")
        for settings in _sweep(sweep):
            try:
                case = Case(model=models[chosen], settings=Settings(**settings))
            except ValidationError as error:
                keys = ["model", *Settings.model_fields]
                raise SuiteError(f"{place}: {_sentence(error, keys)}.") from None
            known = cases.setdefault(case.id, case)
            if known != case:
                raise SuiteError(
                    f"{place}: two different cases have the id '{case.id}'; give one another seed or size."
                )
    order = {name: position for position, name in enumerate(models)}
    dtypes = list(DTYPES)
    return Suite(
        file=file,
        models=tuple(models.values()),
        cases=tuple(
            sorted(
                cases.values(),
                key=lambda case: (
                    order[case.model.name],
                    dtypes.index(case.settings.dtype),
                    case.settings.optimizations,
                ),
            )
        ),
    )


__all__ = ["DDPM", "STABLE_DIFFUSION", "Case", "Model", "Settings", "Suite", "SuiteError", "read_suite"]
