"""From ``suite.toml`` to models and cases, checked before anything runs."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from bench.errors import BenchError
from bench.frozen import Frozen
from bench.suite.case import DTYPES, Case, Model, Settings
from bench.suite.tuning import Tuning, tuning_of

# An id ends in a file name, to which a device or releases are added; file systems take 255 bytes.
LONGEST_ID = 180
SUITE_FILE = Path(__file__).parents[1] / "suite.toml"


class SuiteError(BenchError):
    """A mistake in a suite file; one sentence with file, key and what is allowed."""


class Suite(Frozen):
    """The models and the cases of one suite file, cases sorted so that each pipeline is loaded once."""

    file: Path
    models: tuple[Model, ...]
    cases: tuple[Case, ...]
    tunings: dict[str, Tuning] = Field(default={})


_SWEPT = ("scheduler", "steps", "guidance", "dtype", "seed", "images", "size", "options", "call", "task", "scenario")
_LISTS = ("optimizations", "prompts")


def _sweep(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations of the keys that hold a list; ``optimizations`` and ``prompts`` are swept by lists of lists."""
    axes = {key: table[key] for key in _SWEPT if isinstance(table.get(key), list)}
    axes |= {key: table[key] for key in _LISTS if isinstance(table.get(key), list) and _holds_lists(table[key])}
    for values in itertools.product(*axes.values()):
        settings = table | dict(zip(axes, values, strict=True))
        yield settings | _pictures(settings) if "images" in axes else settings


def _pictures(settings: dict[str, Any]) -> dict[str, Any]:
    """Of a sweep over ``images``: as many prompts, the same ones again if need be, and a tag for the id."""
    images, prompts = settings["images"], settings.get("prompts", [])
    if not isinstance(images, int) or not prompts:
        return {"tag": f"images{images}"}
    return {"tag": f"images{images}", "prompts": list(itertools.islice(itertools.cycle(prompts), images))}


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
        raise SuiteError(f"{file}: [{key}] is missing or empty; a suite needs models and cases.")
    return value


@dataclass(frozen=True)
class _Entries:
    """The models of a file, and by model the settings that its cases and its sentinels start from."""

    models: dict[str, Model]
    defaults: dict[str, dict[str, dict[str, Any]]]


def read_suite(file: Path = SUITE_FILE) -> Suite:
    """Reads and checks a suite file.

    Raises:
        SuiteError: the file is missing, is not valid TOML, or asks for something that cannot work.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"{file}: cannot be read ({error.strerror}); pass an existing file to --suite.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{file}: not valid TOML: {error}.") from None
    unknown = set(document) - {"models", "cases", "sentinels", "tune"}
    if unknown:
        raise SuiteError(f"{file}: unknown key '{min(unknown)}'; allowed: models, cases, sentinels, tune.")
    entries = _read_models(document, file)
    cases: dict[str, Case] = {}
    _section(document, "cases", list, file)
    for section in _DEFAULTS:
        for place, case in _read_cases(document, section, entries, file):
            if len(case.id) > LONGEST_ID:
                raise SuiteError(
                    f"{place}: the id of a case has {len(case.id)} characters and at most {LONGEST_ID} fit into a file "
                    f"name: {case.id[:80]}…; shorten the values in 'call' and 'options'."
                )
            known = cases.setdefault(case.id, case)
            if known != case:
                other = "tag" if section == "sentinels" else "seed or size"
                raise SuiteError(
                    f"{place}: two different cases have the id '{case.id}'; give one of them another {other}."
                )
    for case in cases.values():
        if case.plain.id not in cases:
            raise SuiteError(f"{file}: {case.id} must match {case.plain.id}, which is not in the suite; add it.")
    models = tuple(entries.models.values())
    tunings = _read_tunings(document, entries, file)
    return Suite(file=file, models=models, cases=tuple(_sorted(cases.values(), entries)), tunings=tunings)


def _read_tunings(document: dict[str, Any], entries: _Entries, file: Path) -> dict[str, Tuning]:
    """What may be tuned of each model; of one without a table, what is usual for its kind."""
    tables = document.get("tune", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise SuiteError(f"{file}: tune: tables are needed ([tune.<model>]).")
    unknown = set(tables) - set(entries.models)
    if unknown:
        raise SuiteError(f"{file}: [tune.{min(unknown)}]: unknown model; known: {', '.join(entries.models)}.")
    found = {}
    for name, model in entries.models.items():
        try:
            found[name] = tuning_of(model, tables.get(name, {}), entries.defaults[name]["cases"])
        except ValidationError as error:
            raise SuiteError(f"{file}: [tune.{name}]: {_sentence(error, Tuning.model_fields)}.") from None
    return found


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
            raise SuiteError(f"{file}: models.{name}: name: the table's name is the model's name; remove the key.")
        try:
            models[name] = _with_absolute_loras(Model(name=name, **entry), file.parent)
        except ValidationError as error:
            keys = [key for key in Model.model_fields if key != "name"]
            raise SuiteError(f"{file}: models.{name}: {_sentence(error, [*keys, *_DEFAULTS.values()])}.") from None
    return _Entries(models, defaults)


def _with_absolute_loras(model: Model, folder: Path) -> Model:
    """So that a process that knows the model alone finds them."""
    if not any(lora.path for lora in model.loras.values()):
        return model
    loras = {
        name: lora.model_copy(update={"path": (folder / lora.path).resolve()}) if lora.path else lora
        for name, lora in model.loras.items()
    }
    return model.model_copy(update={"loras": loras})


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
