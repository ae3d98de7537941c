"""What can be chosen about the simulated accelerator, in code or in one environment variable."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

TYPE = "sim"
NAME = "simulated accelerator"
VARIABLE = "SIMULATED_ACCELERATOR"


class SimulationError(RuntimeError):
    """The simulated accelerator cannot do what was asked; one sentence."""


@dataclass(frozen=True)
class Settings:
    """How many devices there are, and what each is like.

    Attributes:
        devices: number of devices, at least 1.
        memory_bytes: memory of each device; what would exceed it raises ``torch.OutOfMemoryError``.
        latency_s: seconds that each kernel takes beyond its computation on the CPU.
    """

    devices: int = 2
    memory_bytes: int = 16 << 30
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if self.devices < 1 or self.memory_bytes < 0 or self.latency_s < 0:
            raise SimulationError(f"{self}: at least one device, and neither memory nor latency below zero.")


def asked_for() -> bool:
    """Whether the environment asks for the simulated accelerator."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def settings_from_environment() -> Settings:
    """The settings in ``SIMULATED_ACCELERATOR``: ``1``, or some of ``devices=2,memory_bytes=1000000,latency_s=0.001``.

    Raises:
        SimulationError: the variable has another form.
    """
    value = os.environ.get(VARIABLE, "")
    if value in ("", "0", "1"):
        return Settings()
    kinds: dict[str, type] = {field.name: type(field.default) for field in dataclasses.fields(Settings)}
    try:
        pairs = dict(pair.split("=") for pair in value.split(","))
        return Settings(**{name: kinds[name](text) for name, text in pairs.items()})
    except (KeyError, ValueError):
        known = ", ".join(f"{name}=…" for name in kinds)
        raise SimulationError(f"{VARIABLE}={value}: expected 1, or some of {known}, with commas between.") from None
