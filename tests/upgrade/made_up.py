"""Cases and checks that were never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.upgrade.outcome import CaseFound, Figure, PicturesFound, SideFound, UpgradeFound, WorkFound


def case(name: str, verdict: str = "identical", message: str = "", **more: Any) -> CaseFound:
    """A case of a model, with a scheduler and a number of steps: ``case("emoji-sd/ddim-s5")``."""
    scheduler, _, steps = name.partition("/")[2].rpartition("-s")
    settings = {"scheduler": scheduler, "steps": int(steps), "images": 1, "dtype": "float32", "slow": False}
    return CaseFound(
        case=name,
        settings=settings | more.pop("settings", {}),
        pictures=PicturesFound(verdict=verdict, message=message or verdict),
        unet_calls=(5, 5),
        new_warnings=(),
        seconds=1.0,
        **more,
    )


def figure(verdict: str = "same", ratio: float = 1.0) -> Figure:
    return Figure(verdict=verdict, ratio=ratio, low=ratio - 0.01, high=ratio + 0.01, min_change=0.03, pairs=7)


def work(message: str = "same work") -> WorkFound:
    return WorkFound(verdict=message.partition(":")[0], message=message, baseline={}, candidate={})


def check(
    cases: Sequence[CaseFound],
    changes: Sequence[str] = ("diffusers 0.41.0 → 0.42.1",),
    asked: tuple[str, str] = ("diffusers==0.41.0", "diffusers==0.42.1"),
    **more: Any,
) -> UpgradeFound:
    return UpgradeFound(
        schema=1,
        baseline=SideFound(asked=asked[0], libraries={}),
        candidate=SideFound(asked=asked[1], libraries={}),
        changes=tuple(changes),
        device="cpu",
        device_name="a processor",
        mode="duet",
        budget_s=60,
        min_change=0.03,
        cases=tuple(cases),
        **more,
    )
