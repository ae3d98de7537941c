"""The command line, parsed once into a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.goldens import EXACT, REFERENCE, TYPE
from bench.suite import SUITE_FILE


@dataclass(frozen=True)
class Options:
    """What the user asked for; ``golden_update`` is ``None`` or the level at which goldens may be written."""

    suite: Path
    models: tuple[str, ...]
    device: str
    require_device: str | None
    rounds: int
    golden_dir: Path
    golden_update: str | None
    results: Path
    slow: bool

    @classmethod
    def from_config(cls, config: pytest.Config) -> Options:
        """Relative paths of options are relative to where pytest was started; defaults to the project.

        Raises:
            pytest.UsageError: a value makes no sense.
        """
        rounds = config.getoption("rounds")
        if rounds < 2:
            raise pytest.UsageError(f"--rounds {rounds}: at least 2 are needed to compare the first with the last.")

        def path(name: str, default: Path) -> Path:
            given = config.getoption(name)
            return config.invocation_params.dir / given if given else default

        return cls(
            suite=path("suite", SUITE_FILE),
            models=tuple(name for given in config.getoption("model") for name in given.split(",") if name),
            device=config.getoption("device"),
            require_device=config.getoption("require_device"),
            rounds=rounds,
            golden_dir=path("golden_dir", config.rootpath / "golden"),
            golden_update=config.getoption("golden_level") if config.getoption("golden_update") else None,
            results=path("results", config.rootpath / "results"),
            slow="slow" in (config.getoption("markexpr") or ""),
        )


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "diffusion pipelines: speed and golden pictures")
    group.addoption("--suite", metavar="PATH", help="models and cases to run (default: bench/suite.toml)")
    group.addoption(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="only this model of the suite; may be given again. Hub models run only when chosen so "
        "(default: all embedded and local models)",
    )
    group.addoption("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, xpu, … (default: auto)")
    group.addoption(
        "--require-device", metavar="TYPE", help="stop with exit code 4 unless the run is on this type of device"
    )
    group.addoption("--rounds", type=int, default=3, metavar="N", help="steady samples per case (default: 3)")
    group.addoption("--golden-dir", metavar="PATH", help="the golden store (default: golden/)")
    group.addoption(
        "--golden-update",
        action="store_true",
        help="accept the pictures of the selected cases as their goldens; the run fails for what it wrote",
    )
    group.addoption(
        "--golden-level",
        choices=("auto", REFERENCE, TYPE, EXACT),
        default="auto",
        help="where --golden-update writes: for every device, this device type, or this exact device (default: auto: "
        "the reference unless it comes from another device type)",
    )
    group.addoption("--results", metavar="PATH", help="where each run gets its folder (default: results/)")
