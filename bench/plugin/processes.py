"""Which accelerator each process of pytest-xdist gets: one of its own, out of those that the caller may use.

The process that starts the others sets their variables, so that these are there before torch is imported. A process
that takes the place of a crashed one gets the variables of that one, and so its device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from bench import simulated
from bench.calls.device import Device, DeviceError, choose_device, device_count
from bench.errors import BenchError

# The device of a process, for its records; the simulated accelerator has no variable that hides devices.
DEVICE_ID = "BENCH_DEVICE_ID"
# By type of device: the variables that say which devices a process may use, the one to set if none is set first.
VISIBLE = {
    "cuda": ("CUDA_VISIBLE_DEVICES",),
    "hip": ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    "xpu": ("ZE_AFFINITY_MASK",),
}


@dataclass(frozen=True)
class Visible:
    """The devices that a caller may use.

    Attributes:
        variable: that hides all others from a process; ``None`` for simulated devices.
        names: what the variable is set to for each of them.
        is_given: whether the caller set the variable.
    """

    variable: str | None
    names: tuple[str, ...]
    is_given: bool = False

    def of_process(self, number: int) -> dict[str, str]:
        """The variables of a process."""
        name = self.names[number]
        return {DEVICE_ID: name} | ({self.variable: name} if self.variable else {})


def visible_devices(kind: str, count: int, environment: Mapping[str, str]) -> Visible:
    """The devices of a type, by the names that the caller gave them, or else by number.

    Args:
        kind: a key of ``VISIBLE``, or ``sim``.
        count: how many torch sees; of MIG instances it sees one.
    """
    if kind == simulated.TYPE:
        return Visible(None, tuple(f"{kind}:{number}" for number in range(count)))
    variables = VISIBLE[kind]
    variable = next((name for name in variables if name in environment), variables[0])
    if variable not in environment:
        return Visible(variable, tuple(map(str, range(count))))
    names = [name.strip() for name in environment[variable].split(",")]
    # The drivers ignore what follows the first entry that is empty or negative.
    end = next((place for place, name in enumerate(names) if not name or name.startswith("-")), len(names))
    known = tuple(dict.fromkeys(names[:end]))
    return Visible(variable, known[:count] if known and known[0].isdecimal() else known, is_given=True)


def share_devices(visible: Visible, processes: int, device: str) -> list[dict[str, str]]:
    """The variables of each process.

    Args:
        device: what ``--device`` says.

    Raises:
        DeviceError: there are fewer devices than processes.
    """
    there = len(visible.names)
    if there < processes:
        found = f"{there} ({', '.join(visible.names)})" if there else "none"
        limit = f", and {visible.variable} hides others" if visible.is_given else ""
        raise DeviceError(
            f"--device {device} -n {processes}: each process needs a device of its own, and there are "
            f"{found}{limit}; give -n {max(there, 1)} or -n auto."
        )
    return [visible.of_process(number) for number in range(processes)]


def _kind(device: str) -> str | None:
    """The type of devices to share; ``None`` unless ``--device`` names one that can be shared, without a number."""
    if device == "cuda" and torch.version.hip:
        return "hip"
    return device if device in VISIBLE or device == simulated.TYPE else None


def _visible_to(device: str) -> Visible | None:
    kind = _kind(device)
    return visible_devices(kind, device_count(device), os.environ) if kind else None


def number_of_processes(config: pytest.Config) -> int | None:
    """What ``-n auto`` means: a process for each device; ``None`` leaves it to pytest-xdist."""
    device = config.getoption("device")
    if not _kind(device):
        return None
    try:
        choose_device(device)
    except BenchError:  # reported when the session starts
        return None
    visible = _visible_to(device)
    return max(1, len(visible.names)) if visible else None


def give_devices(config: pytest.Config, wanted: str, device: Device) -> None:
    """Lets each process that will be started see a device of its own, if ``--device`` names a type that has several.

    Raises:
        DeviceError: there are fewer devices than processes.
    """
    options: Any = config.option
    processes = len(getattr(options, "tx", None) or ())
    visible = _visible_to(wanted) if getattr(options, "numprocesses", None) and not is_worker(config) else None
    if visible:
        shares = share_devices(visible, processes, wanted)
        options.tx = ["//".join(["popen", *(f"env:{name}={value}" for name, value in one.items())]) for one in shares]


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def device_id(config: pytest.Config) -> str | None:
    """The device that this process got."""
    return os.environ.get(DEVICE_ID) if is_worker(config) else None


def own_device(config: pytest.Config) -> str | None:
    """The device of this process for ``choose_device``, where no variable hides the others."""
    own = device_id(config)
    return own if own and own.startswith(f"{simulated.TYPE}:") else None
