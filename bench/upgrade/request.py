"""What a worker must know to load the pipeline of a case."""

from __future__ import annotations

from typing import Any

from bench.calls.pipelines import Checkpoint
from bench.suite.case import Case


def load_request(case: Case, checkpoint: Checkpoint, device: str, threads: int) -> dict[str, Any]:
    """What a worker must know to load the pipeline of a case."""
    return {
        "model": case.model.model_dump(mode="json"),
        "settings": case.settings.model_dump(mode="json") | {"seeds": case.settings.seeds},
        "folder": str(checkpoint.folder.resolve()),
        "pickled": checkpoint.pickled,
        "variant": checkpoint.variant,
        "device": device,
        "threads": threads,
    }


def case_of(request: dict[str, Any]) -> Case:
    """The case that a request is for."""
    settings = {key: value for key, value in request["settings"].items() if key != "seeds"}
    return Case.model_validate({"model": request["model"], "settings": settings})
