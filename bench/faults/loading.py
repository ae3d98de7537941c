"""Faults of loading and configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin

from bench.faults.fault import TRANSFORMERS, Apply, Fault, Patch, issue, pull

AREA = "loading"


def class_method(patch: Patch, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Like ``wrap``, for class methods; ``make`` takes and returns functions whose first argument is the class."""
    patch.setattr(owner, name, classmethod(make(getattr(owner, name).__func__)))


def _owner(name: str) -> Any:
    if name == "CLIPTextModel":
        from transformers import CLIPTextModel

        return CLIPTextModel
    return getattr(diffusers, name)


def loaded_as(owner: str, change: Callable[[Any], Any]) -> Apply:
    """``change(model)`` after a model is loaded."""

    def make(original: Any) -> Any:
        def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
            model = original(cls, *args, **kwargs)
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(0)
                change(model)
            return model

        return from_pretrained

    return lambda patch: class_method(patch, _owner(owner), "from_pretrained", make)


def _without_dtype(patch: Patch) -> None:
    def make(original: Any) -> Any:
        def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
            kept = {key: value for key, value in kwargs.items() if key not in ("dtype", "torch_dtype")}
            return original(cls, *args, **kept)

        return from_pretrained

    class_method(patch, diffusers.DiffusionPipeline, "from_pretrained", make)


def _extracting(change: Callable[[Any, dict[str, Any], dict[str, Any]], Any]) -> Apply:
    """``change(cls, config, keywords)`` returns the configuration and the keywords from which a class is built."""

    def make(original: Any) -> Any:
        def extract_init_dict(cls: Any, config_dict: Any, **kwargs: Any) -> Any:
            config, keywords = change(cls, dict(config_dict), kwargs)
            return original(cls, config, **keywords)

        return extract_init_dict

    return lambda patch: class_method(patch, ConfigMixin, "extract_init_dict", make)


def _is_scheduler(cls: Any) -> bool:
    return cls.__name__.endswith("Scheduler")


def _without(*keys: str) -> Any:
    def change(cls: Any, config: dict[str, Any], keywords: dict[str, Any]) -> Any:
        return {key: value for key, value in config.items() if key not in keys or not _is_scheduler(cls)}, keywords

    return change


def _keywords_lost(cls: Any, config: dict[str, Any], keywords: dict[str, Any]) -> Any:
    return config, {} if _is_scheduler(cls) else keywords


def _lost_on_switching(cls: Any, config: dict[str, Any], keywords: dict[str, Any]) -> Any:
    switched = _is_scheduler(cls) and config.get("_class_name") not in (None, cls.__name__)
    return {"_class_name": cls.__name__} if switched else config, keywords


def _rounded(model: Any) -> None:
    for weight in model.parameters():
        weight.copy_(weight.bfloat16())


def _not_contiguous(model: Any) -> None:
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.weight.shape[-1] == 3:
            layer.weight.copy_(layer.weight.transpose(2, 3).contiguous())


FAULTS = (
    Fault(
        "unet-layer-lost",
        AREA,
        "The weights of one layer of the UNet are not found and are drawn at random.",
        pull(9061),
        loaded_as("UNet2DConditionModel", lambda model: model.mid_block.resnets[0].conv1.reset_parameters()),
        at_load=True,
    ),
    Fault(
        "decoder-bias-lost",
        AREA,
        "The last bias of the decoder is not found and stays zero.",
        pull(11078),
        loaded_as("AutoencoderKL", lambda model: model.decoder.conv_out.bias.zero_()),
        at_load=True,
    ),
    Fault(
        "text-layer-lost",
        AREA,
        "The weights of one layer of the text encoder are not found and are drawn at random.",
        pull(695),
        loaded_as("CLIPTextModel", lambda model: model.encoder.layers[-1].mlp.fc1.reset_parameters()),
        at_load=True,
    ),
    Fault(
        "weights-rounded",
        AREA,
        "The UNet's weights are rounded to bfloat16 on loading.",
        issue(36686, TRANSFORMERS),
        loaded_as("UNet2DConditionModel", _rounded),
        at_load=True,
    ),
    Fault(
        "kernels-transposed",
        AREA,
        "The decoder's convolution kernels are loaded transposed.",
        pull(10761),
        loaded_as("AutoencoderKL", _not_contiguous),
        at_load=True,
    ),
    Fault(
        "text-encoder-in-its-own-type",
        AREA,
        "The text encoder is loaded in half precision, whatever was requested.",
        issue(36686, TRANSFORMERS),
        loaded_as("CLIPTextModel", lambda model: model.half()),
        at_load=True,
    ),
    Fault(
        "dtype-ignored",
        AREA,
        "The requested dtype is ignored, and the pipeline is loaded in float32.",
        pull(10816),
        _without_dtype,
        at_load=True,
    ),
    Fault(
        "option-lost-on-load",
        AREA,
        "The scheduler's configuration loses steps_offset.",
        pull(2849),
        _extracting(_without("steps_offset")),
        at_load=True,
    ),
    Fault(
        "betas-lost-on-load",
        AREA,
        "The scheduler's configuration loses the first and the last beta.",
        pull(3129),
        _extracting(_without("beta_start", "beta_end")),
        at_load=True,
    ),
    Fault(
        "scheduler-options-lost",
        AREA,
        "from_config ignores the options given to it.",
        pull(7192),
        _extracting(_keywords_lost),
    ),
    Fault(
        "configuration-lost-on-switching",
        AREA,
        "A scheduler of another class is built with defaults instead of the configuration.",
        pull(2595),
        _extracting(_lost_on_switching),
    ),
)
