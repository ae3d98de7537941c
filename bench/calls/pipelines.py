"""From a model to a ready pipeline on a device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from packaging.version import Version

from bench.calls import hub
from bench.calls.device import Device, clock
from bench.calls.lora import lora_hash, loras_of, mix_in
from bench.calls.optimizations import apply_optimizations
from bench.calls.weight_files import INDEX, PICKLED, PipelineFiles, files_in, missing_files, pipeline_files
from bench.errors import BenchError
from bench.suite.schedulers import STABLE_DIFFUSION

if TYPE_CHECKING:
    from bench.suite.case import Model

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
MOST_NAMED = 3


class PipelineError(BenchError):
    """A pipeline cannot be loaded; one sentence that says what was looked for, where, and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline's files on this disk.

    Attributes:
        revision: the hub's commit, ``None`` for folders.
        pickled: some weights are ``.bin`` files.
        variant: that of the weights, such as ``fp16`` in ``model.fp16.safetensors``; ``None`` for plain names.
    """

    folder: Path
    revision: str | None
    pickled: bool
    variant: str | None = None


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline on its device, with its own scheduler's configuration (each call gets a new scheduler).

    Attributes:
        weights: hash of the weight files that were loaded; empty if it was not computed.
    """

    pipeline: Any
    scheduler_config: dict[str, Any]
    load_s: float
    revision: str | None
    device: Device
    weights: str = ""


def dtype_argument(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The keyword of ``from_pretrained`` for the dtype: diffusers 0.40 renamed ``torch_dtype`` to ``dtype``."""
    import diffusers

    return {"dtype" if Version(diffusers.__version__) >= Version("0.40.0") else "torch_dtype": dtype}


def _pipeline_class(model: Model) -> Any:
    import diffusers

    return diffusers.StableDiffusionPipeline if model.kind == STABLE_DIFFUSION else diffusers.DDPMPipeline


def _without_checker(model: Model) -> dict[str, None]:
    if model.kind != STABLE_DIFFUSION or model.safety_checker:
        return {}
    return {"safety_checker": None, "feature_extractor": None}


def _names(model: Model) -> str:
    return f"model '{model.name}': {model.id} at revision {model.revision or 'main'}"


def _hub_folder(model: Model, announce: Callable[[str], None]) -> Path:
    """The folder in the hub's cache, with what is missing downloaded unless the hub is switched off."""

    def choose(index: Mapping[str, Any], paths: Iterable[str]) -> tuple[str, ...]:
        return _chosen_files(model, index, paths, f"hub repository {model.id}").all

    why = "the hub is switched off (HF_HUB_OFFLINE)"
    if not hub.is_offline():
        try:
            return hub.Repository(str(model.id), model.revision, _names(model), announce).download(choose)
        except hub.HubUnavailable as error:
            why = str(error)
        except hub.HubError as error:
            raise PipelineError(str(error)) from error
    folder = hub.cached_snapshot(str(model.id), model.revision)
    missing = _missing(model, folder) if folder else []
    if folder and not missing:
        if not hub.is_offline():
            announce(f"{why}; using {folder.name} from the cache")
        return folder
    lacks = f"incomplete in the cache (without {', '.join(missing)})" if missing else "not in the cache"
    named = "" if why.startswith(_names(model)) else f"{_names(model)}: "
    raise PipelineError(
        f"{named}{why}, and it is {lacks} {hub.cache_folder()}; run 'python -m bench.prefetch --model {model.name}' "
        'where there is access and copy the cache, or point the entry to a folder (source = "local", path = ...).'
    )


def is_cached(model: Model) -> bool:
    """Whether the hub's cache has all that a model loads, so that it needs no network."""
    folder = hub.cached_snapshot(str(model.id), model.revision)
    return folder is not None and not _missing(model, folder)


def _missing(model: Model, folder: Path) -> list[str]:
    index = _read_index(model, folder)
    files = _select(model, index, files_in(folder))
    return missing_files(folder, index, files, tuple(_without_checker(model)))


def _pickle_refused(model: Model, place: str) -> str:
    return (
        f"model '{model.name}': {place} has only pickled weights (.bin), and unpickling can run code; "
        "set allow_pickle = true in the model's entry if you trust it."
    )


def _select(model: Model, index: Mapping[str, Any], paths: Iterable[str]) -> PipelineFiles:
    return pipeline_files(
        index,
        paths,
        without=tuple(_without_checker(model)),
        variant=model.variant,
        allow_pickle=model.allow_pickle,
    )


def _chosen_files(model: Model, index: Mapping[str, Any], paths: Iterable[str], place: str) -> PipelineFiles:
    """The files that a model loads.

    Raises:
        PipelineError: its weights are pickled and may not be, or it has no weights of its variant.
    """
    files = _select(model, index, paths)
    if any(path.endswith(f".{PICKLED}") for path in files.refused) and not model.allow_pickle:
        raise PipelineError(_pickle_refused(model, place))
    if files.refused:
        names = ", ".join(files.refused[:MOST_NAMED])
        raise PipelineError(
            f"model '{model.name}': {place} has other variants of its weights only ({names}); "
            "set 'variant' in the model's entry, such as variant = \"fp16\"."
        )
    if model.variant and files.variant is None:
        raise PipelineError(
            f"model '{model.name}': {place} has no weights of the variant '{model.variant}' that may be loaded; "
            "correct or remove 'variant' in the model's entry."
        )
    return files


def checkpoint_files(model: Model, folder: Path) -> PipelineFiles:
    """The files of a checkpoint on this disk that a model loads, and no others.

    Raises:
        PipelineError: as ``find_checkpoint``.
    """
    return _chosen_files(model, _read_index(model, folder), files_in(folder), str(folder))


def find_checkpoint(model: Model, suite_folder: Path, announce: Callable[[str], None] = print) -> Checkpoint:
    """The folder of a model's files, downloaded if they are on the hub and not in its cache.

    Args:
        announce: called with a line about each download and each retry.

    Raises:
        PipelineError: the folder does not exist, the hub does not provide it, its weights are pickled and the model's
            entry does not allow that, or it has no weights of the model's variant.
    """
    if model.source == "hub":
        folder = _hub_folder(model, announce)
        revision = folder.name
    else:
        folder = CHECKPOINTS / model.name if model.source == "embedded" else suite_folder / (model.path or "")
        revision = None
    _check_kind(model, folder)
    files = checkpoint_files(model, folder)
    return Checkpoint(folder, revision, files.pickled, files.variant)


def _read_index(model: Model, folder: Path) -> dict[str, Any]:
    index = folder / INDEX
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        content["_class_name"]
    except OSError:
        raise PipelineError(f"model '{model.name}': {folder} is not a pipeline (it has no {INDEX}).") from None
    except (ValueError, KeyError, TypeError):
        raise PipelineError(f"model '{model.name}': {index} is damaged; download the checkpoint again.") from None
    return dict(content)


def _check_kind(model: Model, folder: Path) -> None:
    found = _read_index(model, folder)["_class_name"]
    wanted = _pipeline_class(model).__name__
    if found != wanted:
        raise PipelineError(
            f"model '{model.name}': {folder} contains a {found}, but kind '{model.kind}' is a {wanted}; "
            "correct 'kind' in the model's entry."
        )


def weights_hash(folder: Path, model: Model) -> str:
    """SHA-256 over names and contents of the weight files that the model loads, as hexadecimal digits.

    Raises:
        PipelineError: as ``find_checkpoint``, or a file in the hub's cache is damaged.
    """
    digest = hashlib.sha256()
    for path in checkpoint_files(model, folder).weights:
        digest.update(path.encode())
        with (folder / path).open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
        if model.source == "hub" and hub.is_another(folder / path, content.hexdigest()):
            raise PipelineError(
                f"model '{model.name}': {path} is damaged in the cache; delete {hub.content_of(folder / path)} and run "
                f"'python -m bench.prefetch --model {model.name}'."
            )
        digest.update(content.digest())
    return digest.hexdigest()


def weights_with_loras(model: Model, checkpoint: Checkpoint, optimizations: Sequence[str]) -> str:
    """SHA-256 over the weights of a pipeline, and of the LoRAs among its optimizations.

    Raises:
        LoraError: the weights of a LoRA are not there.
    """
    weights = weights_hash(checkpoint.folder, model)
    for name, lora in loras_of(model, optimizations):
        weights = hashlib.sha256(f"{weights} {lora_hash(name, lora)}".encode()).hexdigest()
    return weights


def _hide_loading_bars() -> None:
    """Loading takes a second; its progress bars would only clutter the lines of the cases."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def load_pipeline(
    model: Model,
    dtype: str,
    optimizations: tuple[str, ...],
    device: Device,
    suite_folder: Path,
    *,
    announce: Callable[[str], None] = print,
) -> LoadedPipeline:
    """Finds, hashes and loads a model; the download and the hash are not part of ``load_s``.

    Args:
        announce: called with a line about each download and each retry.

    Raises:
        PipelineError: as ``find_checkpoint``, or the libraries refuse the files.
        NotApplied: an optimization could not be switched on.
    """
    checkpoint = find_checkpoint(model, suite_folder, announce)
    weights = weights_with_loras(model, checkpoint, optimizations)
    return replace(load_checkpoint(model, checkpoint, dtype, optimizations, device), weights=weights)


def load_checkpoint(
    model: Model, checkpoint: Checkpoint, dtype: str, optimizations: tuple[str, ...], device: Device
) -> LoadedPipeline:
    """Loads a model's files from disk to the device.

    Raises:
        PipelineError: the libraries refuse the files.
        NotApplied: an optimization could not be switched on.
    """
    arguments: dict[str, Any] = dtype_argument(getattr(torch, dtype)) | _without_checker(model)
    if model.kind == STABLE_DIFFUSION and not model.safety_checker:
        arguments["requires_safety_checker"] = False
    if checkpoint.variant:
        arguments["variant"] = checkpoint.variant
    _hide_loading_bars()
    began = clock(device)
    try:
        pipeline = _pipeline_class(model).from_pretrained(
            checkpoint.folder,
            use_safetensors=None if checkpoint.pickled else True,
            local_files_only=True,
            **arguments,
        )
    except Exception as error:  # each library that reads a part raises its own
        first = (str(error).strip() or "no reason given").splitlines()[0]
        raise PipelineError(
            f"model '{model.name}': {checkpoint.folder} cannot be loaded ({type(error).__name__}: {first})."
        ) from error
    pipeline.to(device.torch_device)
    load_s = clock(device) - began
    pipeline.set_progress_bar_config(disable=True)
    config = dict(pipeline.scheduler.config)
    for name, lora in loras_of(model, optimizations):
        mix_in(pipeline, name, lora)
    apply_optimizations(pipeline, optimizations)
    return LoadedPipeline(pipeline, config, load_s, checkpoint.revision, device)
