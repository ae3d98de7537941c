"""Named speed settings, and where each one works. ``bench.calls.optimizations`` switches them on."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass

from bench.suite.schedulers import DDPM, STABLE_DIFFUSION

_ANY = frozenset({STABLE_DIFFUSION, DDPM})
_SD = frozenset({STABLE_DIFFUSION})
_CUDA = frozenset({"cuda"})
# Any device but the processor.
_ACCELERATOR = frozenset({"accelerator"})


@dataclass(frozen=True)
class Optimization:
    """A speed setting.

    Attributes:
        kinds: the pipelines that have it.
        compiles: it compiles at the first call.
        in_calls: what it does happens within calls, so its effect can be checked only after the first one.
        changes_pictures: by design, and not only by rounding.
        devices: the types of device that it is for; empty for all, ``accelerator`` for all but the processor.
        dtypes: empty for all.
        package: it needs this package, which the suite does not install.
        excludes: other settings that it does not work with.
    """

    kinds: frozenset[str]
    compiles: bool = False
    in_calls: bool = False
    changes_pictures: bool = False
    devices: frozenset[str] = frozenset()
    dtypes: frozenset[str] = frozenset()
    package: str = ""
    excludes: frozenset[str] = frozenset()

    @property
    def checked_after_call(self) -> bool:
        return self.compiles or self.in_calls


_ATTENTION = frozenset(
    {"attention-slicing", "eager-attention", "sdpa-math", "sdpa-flash", "sdpa-efficient", "sdpa-cudnn"}
)
_COMPILED_UNET = frozenset({"compile-regional", "compile", "compile-reduce-overhead", "compile-max-autotune"})
_OFFLOADS = frozenset({"model-offload", "sequential-offload", "group-offload"})
_QUANTIZED = frozenset({"layerwise-casting", "int8-dynamic", "int8-weights", "float8-dynamic"})
_HALF = frozenset({"float16", "bfloat16"})


def _but(names: frozenset[str], name: str) -> frozenset[str]:
    return names - {name}


def _sdpa(name: str, devices: frozenset[str] = frozenset()) -> Optimization:
    return Optimization(_SD, in_calls=True, devices=devices, excludes=_but(_ATTENTION, name))


def _compiled(name: str, kinds: frozenset[str], devices: frozenset[str] = frozenset()) -> Optimization:
    others = _but(_COMPILED_UNET, name) | _OFFLOADS | {"deepcache", "token-merging"}
    return Optimization(kinds, compiles=True, devices=devices, excludes=others)


def _offload(name: str) -> Optimization:
    return Optimization(_ANY, devices=_ACCELERATOR, excludes=_but(_OFFLOADS, name) | _COMPILED_UNET)


def _quantized(name: str, *, devices: frozenset[str] = frozenset(), dtypes: frozenset[str] = frozenset()):
    return Optimization(
        _SD, changes_pictures=True, devices=devices, dtypes=dtypes, package="torchao", excludes=_but(_QUANTIZED, name)
    )


OPTIMIZATIONS: dict[str, Optimization] = {
    "channels-last": Optimization(_ANY),
    "attention-slicing": Optimization(_SD, excludes=_but(_ATTENTION, "attention-slicing") | {"fused-qkv"}),
    "eager-attention": Optimization(_SD, excludes=_but(_ATTENTION, "eager-attention") | {"fused-qkv"}),
    "sdpa-math": _sdpa("sdpa-math"),
    "sdpa-flash": _sdpa("sdpa-flash"),
    "sdpa-efficient": _sdpa("sdpa-efficient", _CUDA),
    "sdpa-cudnn": _sdpa("sdpa-cudnn", _CUDA),
    "fused-qkv": Optimization(_SD),
    "vae-slicing": Optimization(_SD),
    "vae-tiling": Optimization(_SD, changes_pictures=True),
    "prompt-embeddings": Optimization(_SD, in_calls=True),
    "tf32": Optimization(_ANY, in_calls=True, devices=_CUDA, dtypes=frozenset({"float32"})),
    "cudnn-benchmark": Optimization(_ANY, in_calls=True, devices=_CUDA),
    "compile-regional": _compiled("compile-regional", _SD),
    "compile": _compiled("compile", _ANY),
    "compile-reduce-overhead": _compiled("compile-reduce-overhead", _ANY, _CUDA),
    "compile-max-autotune": _compiled("compile-max-autotune", _ANY, _CUDA),
    "compile-vae": Optimization(_SD, compiles=True, excludes=_OFFLOADS),
    "compile-text-encoder": Optimization(_SD, compiles=True, excludes=_OFFLOADS),
    "model-offload": _offload("model-offload"),
    "sequential-offload": _offload("sequential-offload"),
    "group-offload": _offload("group-offload"),
    "layerwise-casting": Optimization(
        _ANY, changes_pictures=True, excludes=_but(_QUANTIZED, "layerwise-casting") | _COMPILED_UNET
    ),
    "int8-dynamic": _quantized("int8-dynamic"),
    "int8-weights": _quantized("int8-weights"),
    "float8-dynamic": _quantized("float8-dynamic", devices=_CUDA, dtypes=_HALF),
    "guidance-cutoff": Optimization(_SD, in_calls=True, changes_pictures=True, excludes=frozenset({"deepcache"})),
    "freeu": Optimization(_SD, changes_pictures=True),
    "token-merging": Optimization(_SD, in_calls=True, changes_pictures=True, package="tomesd"),
    "deepcache": Optimization(_SD, in_calls=True, changes_pictures=True, package="DeepCache"),
}


# How the name of a model's LoRA begins among its speed settings.
LORA = "lora-"
_LORA = Optimization(_SD, changes_pictures=True, package="peft")


def optimization(name: str) -> Optimization:
    """Raises:
    KeyError: there is no such setting.
    """
    return _LORA if name.startswith(LORA) else OPTIMIZATIONS[name]


def compiles(names: Iterable[str]) -> bool:
    return any(optimization(name).compiles for name in names)


def checked_after_call(names: Iterable[str]) -> tuple[str, ...]:
    """Those whose effect can be checked only after the first call."""
    return tuple(name for name in names if optimization(name).checked_after_call)


def why_not_here(names: Iterable[str], device_type: str, dtype: str) -> str | None:
    """Why these settings cannot be tried together on this device and in this dtype; ``None`` if they can."""
    names = tuple(names)
    for name in names:
        one = optimization(name)
        kind = device_type if device_type in one.devices or device_type == "cpu" else "accelerator"
        if one.devices and kind not in one.devices:
            return f"'{name}' is for {' and '.join(sorted(one.devices))}, not for {device_type}"
        if one.dtypes and dtype not in one.dtypes:
            return f"'{name}' is for {' and '.join(sorted(one.dtypes))}, not for {dtype}"
        if one.package and not importlib.util.find_spec(one.package):
            return f"'{name}' needs the package {one.package.lower()}, which is not installed"
        other = next((other for other in names if other in one.excludes), None)
        if other:
            return f"'{name}' and '{other}' do not work together"
    return None
