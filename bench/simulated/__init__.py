"""A simulated accelerator: a device of torch for machines that have none. See ``README.md``.

Importing this package changes nothing, and loads nothing before it is used; ``enable`` adds the device to torch, for as
long as the process lives. It imports nothing from the rest of the project.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "TYPE": "settings",
    "VARIABLE": "settings",
    "Settings": "settings",
    "SimulationError": "settings",
    "enable": "switch",
    "enable_if_asked": "switch",
    "enabled_settings": "switch",
    "weightless": "storage",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
