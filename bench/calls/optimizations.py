"""Speed settings: each is switched on in a ready pipeline, and checked to have an effect.

A setting without effect is an error, not a result: diffusers accepts some settings on these networks and
silently ignores them (for example ``set_attention_backend``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bench.errors import BenchError
from bench.suite.optimizations import OPTIMIZATIONS


class NotApplied(BenchError):
    """A speed setting could not be switched on, or had no effect."""


@dataclass(frozen=True)
class Knob:
    """``apply`` switches the setting on; ``count`` says in how many places it is on."""

    apply: Callable[[Any], None]
    count: Callable[[Any], int]


def _processors(pipeline: Any, class_prefix: str) -> int:
    return sum(type(part).__name__.startswith(class_prefix) for part in pipeline.unet.attn_processors.values())


def _channels_last(pipeline: Any) -> None:
    pipeline.unet.to(memory_format=torch.channels_last)
    if hasattr(pipeline, "vae"):
        pipeline.vae.to(memory_format=torch.channels_last)


def _count_channels_last(pipeline: Any) -> int:
    return sum(
        weight.dim() == 4 and weight.stride(1) == 1 and not weight.is_contiguous()
        for weight in pipeline.unet.parameters()
    )


def _compile(pipeline: Any) -> None:
    pipeline.unet.compile(fullgraph=True)


def _compile_regional(pipeline: Any) -> None:
    pipeline.unet.compile_repeated_blocks(fullgraph=True)


def _count_graphs(_pipeline: Any) -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


KNOBS: dict[str, Knob] = {
    "channels-last": Knob(_channels_last, _count_channels_last),
    "attention-slicing": Knob(
        lambda pipeline: pipeline.enable_attention_slicing("max"), lambda pipeline: _processors(pipeline, "Sliced")
    ),
    "fused-qkv": Knob(
        lambda pipeline: pipeline.fuse_qkv_projections(), lambda pipeline: _processors(pipeline, "Fused")
    ),
    "vae-slicing": Knob(
        lambda pipeline: pipeline.vae.enable_slicing(), lambda pipeline: int(bool(pipeline.vae.use_slicing))
    ),
    "compile-regional": Knob(_compile_regional, _count_graphs),
    "compile": Knob(_compile, _count_graphs),
}


def apply_optimizations(pipeline: Any, names: tuple[str, ...]) -> None:
    """Switches the settings on, in the order given.

    Raises:
        NotApplied: the installed library lacks the setting, or it changed nothing.
    """
    for name in names:
        try:
            KNOBS[name].apply(pipeline)
        except (AttributeError, ValueError) as error:
            raise NotApplied(f"optimization '{name}' cannot be switched on here: {error}.") from error
    check_applied(pipeline, tuple(name for name in names if not OPTIMIZATIONS[name].compiles))


def check_applied(pipeline: Any, names: tuple[str, ...]) -> None:
    """Raises:
    NotApplied: nothing in the pipeline uses a setting.
    """
    for name in names:
        if KNOBS[name].count(pipeline) == 0:
            raise NotApplied(f"optimization '{name}' had no effect: nothing in the pipeline uses it.")
