"""From a model to a ready pipeline on a device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from packaging.version import Version

from bench.calls.device import Device, clock
from bench.calls.lora import lora_hash, loras_of, mix_in
from bench.calls.optimizations import apply_optimizations
from bench.errors import BenchError
from bench.suite.schedulers import STABLE_DIFFUSION

if TYPE_CHECKING:
    from bench.suite.case import Model

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
WEIGHTS = ("*.safetensors", "*.bin")


class PipelineError(BenchError):
    """A pipeline cannot be loaded; one sentence that says what was looked for, where, and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline's files on this disk.

    Attributes:
        revision: the hub's commit, ``None`` for folders.
        pickled: its weights are ``.bin`` files only.
    """

    folder: Path
    revision: str | None
    pickled: bool


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline on its device, with its own scheduler's configuration (each call gets a new scheduler).

    Attributes:
        weights: hash of the weight files; empty if it was not computed.
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


def _download(model: Model) -> Path:
    try:
        return Path(
            _pipeline_class(model).download(
                model.id,
                revision=model.revision,
                use_safetensors=None if model.allow_pickle else True,
                **_without_checker(model),
            )
        )
    except Exception as error:  # the type depends on the releases of diffusers, huggingface_hub and its HTTP client
        raise PipelineError(_why_not_downloaded(model, error)) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _why_not_downloaded(model: Model, error: Exception) -> str:
    """Why a download failed, in one sentence; libraries wrap the real cause in other exceptions."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    wanted = f"model '{model.name}': {model.id} at revision {model.revision or 'main'}"
    causes = tuple(_causes(error))

    def caused_by(kind: type[BaseException]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    if caused_by(GatedRepoError):
        return f"{wanted}: the repository is gated; accept its terms and set HF_TOKEN."
    if caused_by(RevisionNotFoundError):
        return f"{wanted}: no such revision; correct 'revision' in the model's entry."
    if caused_by(RepositoryNotFoundError):
        return f"{wanted}: no such repository, or it is private; correct 'id' in the model's entry or set HF_TOKEN."
    if "safetensors" in str(error) and not model.allow_pickle:
        return _pickle_refused(model, f"hub repository {model.id}")
    off = constants.HF_HUB_OFFLINE
    why = "the hub is switched off (HF_HUB_OFFLINE)" if off else f"{constants.ENDPOINT} did not provide it"
    return (
        f"{wanted}: not in the cache {constants.HF_HUB_CACHE}, and {why}; run 'hf download {model.id}' where there "
        'is access and copy the cache, or point the entry to a folder (source = "local", path = ...).'
    )


def _pickle_refused(model: Model, place: str) -> str:
    return (
        f"model '{model.name}': {place} has only pickled weights (.bin), and unpickling can run code; "
        "set allow_pickle = true in the model's entry if you trust it."
    )


def find_checkpoint(model: Model, suite_folder: Path) -> Checkpoint:
    """The folder of a model's files, downloaded if they are on the hub and not in its cache.

    Raises:
        PipelineError: the folder does not exist, the hub does not provide it, or its weights are pickled and the
            model's entry does not allow that.
    """
    if model.source == "hub":
        folder = _download(model)
        revision = folder.name
    else:
        folder = CHECKPOINTS / model.name if model.source == "embedded" else suite_folder / (model.path or "")
        revision = None
    _check_kind(model, folder)
    parts = {path.parent for path in folder.rglob("*.bin") if path.parent.name not in _without_checker(model)}
    pickled = any(not list(part.glob("*.safetensors")) for part in parts)
    if pickled and not model.allow_pickle:
        raise PipelineError(_pickle_refused(model, str(folder)))
    return Checkpoint(folder, revision, pickled)


def _check_kind(model: Model, folder: Path) -> None:
    index = folder / "model_index.json"
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except OSError:
        raise PipelineError(f"model '{model.name}': {folder} is not a pipeline (it has no model_index.json).") from None
    except (ValueError, KeyError, TypeError):
        raise PipelineError(f"model '{model.name}': {index} is damaged; download the checkpoint again.") from None
    wanted = _pipeline_class(model).__name__
    if found != wanted:
        raise PipelineError(
            f"model '{model.name}': {folder} contains a {found}, but kind '{model.kind}' is a {wanted}; "
            "correct 'kind' in the model's entry."
        )


def weights_hash(folder: Path) -> str:
    """SHA-256 over names and contents of all weight files, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in WEIGHTS for path in folder.rglob(pattern)):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def weights_with_loras(model: Model, checkpoint: Checkpoint, optimizations: Sequence[str]) -> str:
    """SHA-256 over the weights of a pipeline, and of the LoRAs among its optimizations.

    Raises:
        LoraError: the weights of a LoRA are not there.
    """
    weights = weights_hash(checkpoint.folder)
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
    model: Model, dtype: str, optimizations: tuple[str, ...], device: Device, suite_folder: Path
) -> LoadedPipeline:
    """Finds, hashes and loads a model; the download and the hash are not part of ``load_s``.

    Raises:
        PipelineError: as ``find_checkpoint``, or the libraries refuse the files.
        NotApplied: an optimization could not be switched on.
    """
    checkpoint = find_checkpoint(model, suite_folder)
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
