"""Enables the device in this process, once."""

from __future__ import annotations

from .settings import Settings, SimulationError, asked_for, settings_from_environment
from .support import check_torch

_enabled: list[Settings] = []


def enable(settings: Settings | None = None) -> None:
    """Adds the device type ``sim`` to torch in this process; it cannot be taken away again.

    Does nothing if it is enabled already.

    Args:
        settings: by default those of the environment variable ``SIMULATED_ACCELERATOR``.

    Raises:
        SimulationError: this torch cannot have such a device, has another one in its place, or the device is enabled
            with other settings.
    """
    if _enabled:
        if settings not in (None, _enabled[0]):
            raise SimulationError(f"the simulated accelerator is enabled already, with {_enabled[0]}.")
        return
    settings = settings or settings_from_environment()
    check_torch()
    # Only a torch that passed the check has what this imports.
    from .registration import register

    register(settings)
    _enabled.append(settings)


def enable_if_asked() -> None:
    """Enables the device where ``SIMULATED_ACCELERATOR`` is set; for start-up code and torch's entry points."""
    if asked_for():
        enable()


def enabled_settings() -> Settings | None:
    """The settings of this process; ``None`` where the device is not enabled."""
    return _enabled[0] if _enabled else None
