"""Which files of a checkpoint a pipeline loads; the download, the hash and the check for pickles all use this list."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

INDEX = "model_index.json"
SAFE, PICKLED = "safetensors", "bin"
# The names under which diffusers (the first) and transformers look for weights.
_FORMATS = {"diffusion_pytorch_model": (SAFE, PICKLED), "model": (SAFE,), "pytorch_model": (PICKLED,)}
_NAME = rf"(?P<stem>{'|'.join(_FORMATS)})"
_WEIGHTS = re.compile(
    rf"{_NAME}(\.(?P<variant>[^.]+?))?(?P<shard>-\d{{5}}-of-\d{{5}})?(\.(?P<late>[^.]+))?\.(?P<format>[a-z]+)"
)
_SHARD_INDEX = re.compile(rf"{_NAME}\.(?P<format>[a-z]+)(\.(?P<late>[^.]+))?\.index(\.(?P<variant>[^.]+))?\.json")
_OTHER_WEIGHTS = frozenset({".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".pb", ".pt",
                            ".pth", ".safetensors"})  # fmt: skip
_ROOT_SUFFIXES = frozenset({".json", ".txt", ".model"})


@dataclass(frozen=True)
class _Weights:
    """What the name of a weight file says."""

    path: str
    variant: str | None
    format: str
    in_diffusers: bool
    is_shard: bool
    is_index: bool


@dataclass(frozen=True)
class PipelineFiles:
    """Paths relative to the checkpoint, with ``/``.

    Attributes:
        weights: sorted as paths.
        others: configurations, vocabularies and the indices of shards.
        variant: that of the weights, ``None`` if none has the one that was asked for.
        refused: weights of components of which none may be loaded.
    """

    weights: tuple[str, ...]
    others: tuple[str, ...]
    variant: str | None = None
    refused: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.others, *self.weights)

    @property
    def pickled(self) -> bool:
        return any(path.endswith(f".{PICKLED}") for path in self.weights)


def components(index: Mapping[str, Any], without: Collection[str] = ()) -> tuple[str, ...]:
    """The parts of a pipeline that are loaded, of the content of its ``model_index.json``."""
    return tuple(
        name
        for name, value in index.items()
        if isinstance(value, list) and value and all(value) and name not in without
    )


def pipeline_files(
    index: Mapping[str, Any],
    paths: Iterable[str],
    *,
    without: Collection[str] = (),
    variant: str | None = None,
    allow_pickle: bool = False,
) -> PipelineFiles:
    """Chooses what a pipeline loads.

    Args:
        index: content of ``model_index.json``.
        paths: all files of the checkpoint.
        without: components that are not loaded.
        variant: weights such as ``model.fp16.safetensors`` are preferred where a component has them.
        allow_pickle: take ``.bin`` files where there is no safetensors file.
    """
    folders: dict[str, list[str]] = {}
    for path in paths:
        folders.setdefault(path.rpartition("/")[0], []).append(path)
    named = components(index, without)
    # The first repositories have the files of all components in their root.
    used = {name if name in folders else "" for name in named}
    weights: list[_Weights] = []
    others, refused = {INDEX}, []
    for folder in sorted(used):
        of_folder = folders.get(folder, [])
        known = [found for path in of_folder if (found := _read_name(path))]
        chosen = _chosen(known, variant, (SAFE, PICKLED) if allow_pickle else (SAFE,))
        weights += chosen
        if not chosen:
            refused += [found.path for found in known if not found.is_index]
        names = {found.path for found in known}
        others |= {path for path in of_folder if path not in names and _is_read(path, bool(chosen))}
    files = sorted((found.path for found in weights if not found.is_index), key=PurePosixPath)
    indices = {found.path for found in weights if found.is_index}
    has_variant = any(found.variant == variant for found in weights)
    return PipelineFiles(
        tuple(files), tuple(sorted(others | indices)), variant if has_variant else None, tuple(sorted(refused))
    )


def _read_name(path: str) -> _Weights | None:
    name = path.rpartition("/")[2]
    index = _SHARD_INDEX.fullmatch(name)
    weights = None if index else _WEIGHTS.fullmatch(name)
    match = index or weights
    if not match or match["format"] not in _FORMATS[match["stem"]]:
        return None
    return _Weights(
        path,
        match["variant"] or match["late"],
        match["format"],
        in_diffusers=len(_FORMATS[match["stem"]]) > 1,
        is_shard=bool(weights and weights["shard"]),
        is_index=bool(index),
    )


def _chosen(known: list[_Weights], variant: str | None, formats: tuple[str, ...]) -> list[_Weights]:
    """The weights of one folder, in the order in which the libraries look for them."""
    for wanted in dict.fromkeys((variant, None)):
        for form in formats:
            found = [one for one in known if (one.variant, one.format) == (wanted, form)]
            single = [one for one in found if not one.is_shard and not one.is_index]
            shards = [one for one in found if one.is_shard or one.is_index]
            indexed = any(one.is_index for one in shards)
            # diffusers prefers shards to a single file, transformers the single file.
            chosen = shards if indexed and (not single or single[0].in_diffusers) else single
            if chosen:
                return chosen
    return []


def _is_read(path: str, beside_weights: bool) -> bool:
    """Whether a file that has no weights belongs to a component."""
    suffix = PurePosixPath(path).suffix
    if "/" not in path:
        return suffix in _ROOT_SUFFIXES
    return suffix == ".json" if beside_weights else suffix not in _OTHER_WEIGHTS


def files_in(folder: Path) -> list[str]:
    """All files of a checkpoint on this disk."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def missing_files(folder: Path, index: Mapping[str, Any], files: PipelineFiles, without: Collection[str]) -> list[str]:
    """What a checkpoint on this disk visibly lacks: folders of components, weights, shards."""
    parents = {path.rpartition("/")[0] for path in files.all}
    is_flat = any(path != INDEX and "/" not in path for path in files.all)
    missing = [f"{name}/" for name in components(index, without) if name not in parents and not is_flat]
    weighted = {path.rpartition("/")[0] for path in (*files.weights, *files.refused)}
    for path in files.others:
        parent, _, name = path.rpartition("/")
        if name == "config.json" and parent not in weighted:  # schedulers and tokenizers name theirs otherwise
            missing.append(f"the weights of {parent or 'the network'}")
        if _SHARD_INDEX.fullmatch(name):
            content = json.loads((folder / path).read_text(encoding="utf-8"))
            shards = {f"{parent}/{shard}".lstrip("/") for shard in content.get("weight_map", {}).values()}
            missing += sorted(shards - set(files.weights))
    return missing
