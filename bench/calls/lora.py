"""Mixes LoRA weights into the networks of a pipeline, for good: later calls cost no more than without them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bench.errors import BenchError
from bench.suite.optimizations import LORA


class LoraError(BenchError):
    """LoRA weights cannot be used; one sentence that names them."""


def loras_of(model: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Name and entry of each LoRA among the speed settings; a worker has no pydantic, and models of plain tables."""
    for name in names:
        if name.startswith(LORA):
            entry = model.loras[name.removeprefix(LORA)]
            yield name, SimpleNamespace(**entry) if isinstance(entry, dict) else entry


def find_lora(name: str, lora: Any) -> Path:
    """The file or folder of the weights, downloaded if they are on the hub and not in its cache.

    Raises:
        LoraError: they are not there.
    """
    if lora.id:
        from huggingface_hub import hf_hub_download, snapshot_download

        try:
            if lora.weight_name:
                return Path(hf_hub_download(lora.id, lora.weight_name, revision=lora.revision))
            return Path(snapshot_download(lora.id, revision=lora.revision, allow_patterns="*.safetensors"))
        except Exception as error:  # the type depends on the releases of huggingface_hub and its HTTP client
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise LoraError(f"'{name}': {lora.id} at revision {lora.revision or 'main'}: {first}") from error
    path = Path(lora.path)
    if not path.exists():
        raise LoraError(f"'{name}': {path} does not exist; correct 'path' in the model's entry.")
    return path


def lora_hash(name: str, lora: Any) -> str:
    """SHA-256 of the weights, as hexadecimal digits."""
    found = find_lora(name, lora)
    files = sorted(found.rglob("*.safetensors")) if found.is_dir() else [found]
    digest = hashlib.sha256(f"{lora.scale} ".encode())
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def mix_in(pipeline: Any, name: str, lora: Any) -> None:
    """Loads the weights, adds them to those of the networks, and counts in ``pipeline.mixed_in`` how many changed.

    Raises:
        LoraError: the package ``peft`` is missing, or the weights do not fit.
    """
    place = find_lora(name, lora)
    more = {"weight_name": lora.weight_name} if lora.weight_name and place.is_dir() else {}
    before = _sums(pipeline)
    try:
        pipeline.load_lora_weights(str(place), **more)
        pipeline.fuse_lora(lora_scale=lora.scale)
        pipeline.unload_lora_weights()
    except Exception as error:  # diffusers and peft raise what they like for weights that do not fit
        first = (str(error).strip() or "no reason given").splitlines()[0]
        raise LoraError(f"'{name}': {place} cannot be used ({type(error).__name__}: {first})") from error
    after = _sums(pipeline)
    changed = sum(before.get(weight) != value for weight, value in after.items())
    pipeline.mixed_in = {**getattr(pipeline, "mixed_in", {}), name: changed}


def _sums(pipeline: Any) -> dict[str, float]:
    return {
        f"{part} {name}": float(weight.detach().double().abs().sum())
        for part in ("unet", "text_encoder")
        for name, weight in getattr(pipeline, part).named_parameters()
        if torch.is_floating_point(weight)
    }
