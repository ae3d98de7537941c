"""Runs functions of test modules in a separate process: there the simulated accelerator may be enabled.

``python process.py`` enables it and calls functions until its input ends; ``python process.py FILE FUNCTION`` calls one
function in a process that has enabled nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEVICES, MEMORY_BYTES = 4, 64 << 20


@functools.cache
def _module(file: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _call(file: str, function: str, arguments: dict[str, Any]) -> str | None:
    """The traceback of a function that raises."""
    try:
        getattr(_module(file), function)(**arguments)
    except BaseException:
        return traceback.format_exc()
    return None


def _serve() -> None:
    import torch

    from bench.simulated import Settings, devices, enable

    torch.set_num_threads(1)
    enable(Settings(devices=DEVICES, memory_bytes=MEMORY_BYTES))
    # What a test prints is not an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        for device in devices.all_devices():
            device.counters.reset()
        print(json.dumps(_call(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if len(sys.argv) > 1:
        getattr(_module(sys.argv[1]), sys.argv[2])()
    else:
        _serve()
