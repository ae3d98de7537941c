"""All faults, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bench.faults import (
    autoencoder,
    checker,
    editing,
    effort,
    guidance,
    loading,
    networks,
    noise,
    pictures,
    precision,
    raising,
    schedulers,
    text,
)
from bench.faults.fault import Fault

_MODULES = (
    schedulers, guidance, text, autoencoder, networks, pictures, noise, precision, editing, loading, raising, checker,
    effort,
)  # fmt: skip


def _by_name() -> dict[str, Fault]:
    faults: dict[str, Fault] = {}
    for module in _MODULES:
        for fault in module.FAULTS:
            if faults.setdefault(fault.name, fault) is not fault:
                raise ValueError(f"two faults have the name '{fault.name}'.")
    return faults


FAULTS: Mapping[str, Fault] = MappingProxyType(_by_name())
