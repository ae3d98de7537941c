"""Whether this torch can have a device that is written in Python."""

from __future__ import annotations

import torch

from .settings import SimulationError

OLDEST = (2, 10)
# Not public: a later release may take them away.
NEEDED = (
    "torch._C._acc.register_python_privateuseone_hook",
    "torch._C._acc.register_python_privateuseone_device_guard",
    "torch._C._from_dlpack",
    "torch._C._accelerator_synchronizeDevice",
    "torch._C._dispatch_has_kernel_for_dispatch_key",
    "torch._C._ExcludeDispatchKeyGuard",
)


def _exists(dotted: str) -> bool:
    value: object = torch
    for name in dotted.split(".")[1:]:
        value = getattr(value, name, None)
    return value is not None


def check_torch() -> None:
    """Raises:
    SimulationError: torch is too old, has changed, or has another device of this kind.
    """
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < OLDEST:
        raise SimulationError(f"the simulated accelerator needs torch 2.10 or newer; this is {torch.__version__}.")
    missing = [name for name in NEEDED if not _exists(name)]
    if missing:
        raise SimulationError(f"the simulated accelerator needs {missing[0]}, which torch {torch.__version__} lacks.")
    name = torch._C._get_privateuse1_backend_name()
    if name != "privateuseone":
        raise SimulationError(f"torch has the device {name} where the simulated accelerator would be.")
