"""From ``suite.toml`` to models and cases: what is measured, checked before anything runs."""

from __future__ import annotations

import difflib
import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from bench.optimizations import OPTIMIZATIONS, Optimization
from bench.scenarios import PLAIN, SCENARIOS
from bench.schedulers import DDPM, SCHEDULERS, STABLE_DIFFUSION, allowed_schedulers
from bench.tasks import TASKS, TEXT_TO_IMAGE

SUITE_FILE = Path(__file__).with_name("suite.toml")
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
DEFAULT_GUIDANCE = 7.5

Dtype = Literal["float32", "bfloat16", "float16"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Value = bool | int | float | str | list[int] | list[float] | list[str]


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
        options: of the scheduler, passed as keywords beyond those of its name.
        call: further keywords of the pipeline call, such as ``clip_skip``.
        task: the pipeline that calls the weights; ``text-to-image`` is the model's own.
        scenario: the way of calling it, of ``bench.scenarios``.
        sentinel: group of a sentinel case; empty for a timed one.
        tag: ends the id where it would not tell two cases apart.
        issue: where a case is known to raise, or to be wrong, upstream.
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
    options: dict[str, Value] = {}
    call: dict[str, Value] = {}
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
            raise ValueError(f"unknown {info.field_name} '{name}', nearest: {', '.join(near)}; all: README.md")
        return name

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, name: str) -> str:
        if name not in SCHEDULERS:
            raise ValueError(f"'{name}' is none of {', '.join(SCHEDULERS)}")
        return name

    @property
    def seeds(self) -> list[int]:
        return [self.seed + number for number in range(self.images)]

    def described(self) -> dict[str, Any]:
        """What makes the pictures, as JSON holds it: the basic settings, and of the others those that are in use."""
        whole = self.model_dump(mode="json", exclude={"slow", "issue"})
        return {key: value for key, value in whole.items() if key not in _SPECIAL or value != _SPECIAL[key]}


# Settings that most cases leave as they are, and what they then are.
_SPECIAL = {"options": {}, "call": {}, "task": TEXT_TO_IMAGE, "scenario": PLAIN, "sentinel": "", "tag": ""}


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
        elif len(settings.prompts) * settings.call.get("num_images_per_prompt", 1) != settings.images:
            raise ValueError(f"{settings.images} images need as many prompts, not {len(settings.prompts)}")
        for name in settings.optimizations:
            if kind not in OPTIMIZATIONS[name].kinds:
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
        """The case whose pictures this one must give too: itself, unless it is a sentinel with another way to them."""
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


class Suite(_Frozen):
    """The models and the cases of one suite file, cases sorted so that each pipeline is loaded once."""

    file: Path
    models: tuple[Model, ...]
    cases: tuple[Case, ...]


_SWEPT = ("scheduler", "steps", "guidance", "dtype", "seed", "size", "options", "call", "task", "scenario")
_LISTS = ("optimizations", "prompts")


def _sweep(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations of the keys that hold a list; ``optimizations`` and ``prompts`` are lists by nature."""
    axes = {key: table[key] for key in _SWEPT if isinstance(table.get(key), list)}
    axes |= {key: table[key] for key in _LISTS if isinstance(table.get(key), list) and _holds_lists(table[key])}
    for values in itertools.product(*axes.values()):
        yield table | dict(zip(axes, values, strict=True))


def _holds_lists(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, list) for value in values)


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


@dataclass(frozen=True)
class _Entries:
    """The models of a file, and by model the settings that its cases and its sentinels start from."""

    models: dict[str, Model]
    defaults: dict[str, dict[str, dict[str, Any]]]


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
    unknown = set(document) - {"models", "cases", "sentinels"}
    if unknown:
        raise SuiteError(f"{file}: unknown key '{min(unknown)}'; allowed: models, cases, sentinels.")
    entries = _read_models(document, file)
    cases: dict[str, Case] = {}
    _section(document, "cases", list, file)
    for section in _DEFAULTS:
        for place, case in _read_cases(document, section, entries, file):
            known = cases.setdefault(case.id, case)
            if known != case:
                other = "tag" if section == "sentinels" else "seed or size"
                raise SuiteError(f"{place}: two different cases have the id '{case.id}'; give one another {other}.")
    for case in cases.values():
        if case.plain.id not in cases:
            raise SuiteError(f"{file}: {case.id} is to be like {case.plain.id}, which is not in the suite; add it.")
    return Suite(file=file, models=tuple(entries.models.values()), cases=tuple(_sorted(cases.values(), entries)))


def _sorted(cases: Iterable[Case], entries: _Entries) -> list[Case]:
    """So that each pipeline is loaded once, its timed cases first."""
    order = {name: position for position, name in enumerate(entries.models)}
    dtypes = list(DTYPES)

    def key(case: Case) -> tuple[Any, ...]:
        settings = case.settings
        pipeline = order[case.model.name], dtypes.index(settings.dtype), settings.optimizations
        return (*pipeline, bool(settings.sentinel))

    return sorted(cases, key=key)


# The arrays of cases in a suite file, and the table of a model with the settings that they start from.
_DEFAULTS = {"cases": "defaults", "sentinels": "sentinel-defaults"}


def _read_models(document: dict[str, Any], file: Path) -> _Entries:
    models: dict[str, Model] = {}
    defaults: dict[str, dict[str, dict[str, Any]]] = {}
    for name, table in _section(document, "models", dict, file).items():
        if not isinstance(table, dict):
            raise SuiteError(f"{file}: models.{name}: a table is needed ([models.{name}]).")
        entry = dict(table)
        tables = {key: entry.pop(key, {}) for key in _DEFAULTS.values()}
        for key, value in tables.items():
            if not isinstance(value, dict):
                raise SuiteError(f"{file}: models.{name}: {key}: a table is needed ([models.{name}.{key}]).")
        defaults[name] = {"cases": tables["defaults"], "sentinels": tables["defaults"] | tables["sentinel-defaults"]}
        if "name" in entry:
            raise SuiteError(f"{file}: models.{name}: name: the table's own name is the model's; remove the key.")
        try:
            models[name] = Model(name=name, **entry)
        except ValidationError as error:
            keys = [key for key in Model.model_fields if key != "name"]
            raise SuiteError(f"{file}: models.{name}: {_sentence(error, [*keys, *_DEFAULTS.values()])}.") from None
    return _Entries(models, defaults)


def _read_cases(document: dict[str, Any], section: str, entries: _Entries, file: Path) -> Iterator[tuple[str, Case]]:
    """The cases of one array of the file, each with its place there."""
    tables = document.get(section, [])
    if not isinstance(tables, list):
        raise SuiteError(f"{file}: {section}: tables are needed ([[{section}]]).")
    group = ["group"] if section == "sentinels" else []
    keys = ["model", *group, *(key for key in Settings.model_fields if key != "sentinel")]
    for number, table in enumerate(tables, start=1):
        place = f"{file}: [[{section}]] number {number}"
        if not isinstance(table, dict):
            raise SuiteError(f"{place}: a table is needed ([[{section}]]), not {table!r}.")
        chosen = table.get("model")
        if not isinstance(chosen, str) or chosen not in entries.models:
            raise SuiteError(f"{place}: model: unknown model {chosen!r}; known: {', '.join(entries.models)}.")
        for key in table:
            if key not in keys:
                raise SuiteError(f"{place}: {key}: unknown key; allowed: {', '.join(keys)}.")
        given = {key: value for key, value in table.items() if key not in ("model", "group")}
        if group:
            if not table.get("group"):
                raise SuiteError(f"{place}: group: missing; sentinels of one group share a golden file.")
            given["sentinel"] = table["group"]
        sweep = entries.defaults[chosen][section] | given
        empty = [key for key in _SWEPT if sweep.get(key) == []]
        if empty:
            raise SuiteError(f"{place}: {empty[0]}: an empty list makes no case; give a value.")
        for settings in _sweep(sweep):
            try:
                yield place, Case(model=entries.models[chosen], settings=Settings(**settings))
            except ValidationError as error:
                raise SuiteError(f"{place}: {_sentence(error, keys)}.") from None


__all__ = ["DDPM", "STABLE_DIFFUSION", "Case", "Model", "Settings", "Suite", "SuiteError", "read_suite"]
