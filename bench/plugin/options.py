"""The command line, parsed once into a frozen dataclass.

``tox.ini`` loads this module as a plugin: if an option were defined only in ``conftest.py``, pytest would first take
its value for a test path, and an existing folder there would decide which ``conftest.py`` is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.installs.sides import CURRENT
from bench.pictures.outcomes import Difference, read_requirement
from bench.pictures.store import LEVELS, LEVELS_HELP
from bench.record.folder import LATEST
from bench.suite.file import SUITE_FILE
from bench.upgrade.amounts import percent, seconds


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes:
        golden_update: ``None`` or the level at which goldens may be written.
        golden_difference: if given, pictures are accepted as this known difference instead.
        golden_errors: whether what a case raises is accepted also where it names no issue.
        shard: which of how many shards this run is; ``None`` for all cases.
        shard_durations: folder of a run whose durations the shards are split by.
        resume: folder of an interrupted run, as given; ``latest`` is that of the latest run.
    """

    suite: Path
    models: tuple[str, ...]
    device: str
    require_device: str | None
    rounds: int
    golden_dir: Path
    golden_update: str | None
    golden_difference: Difference | None
    golden_errors: bool
    golden_calibrate: bool
    golden_remeasure: bool
    results: Path
    slow: bool
    pictures_only: bool
    shard: tuple[int, int] | None
    shard_durations: Path | None
    resume: str | None

    @classmethod
    def from_config(cls, config: pytest.Config) -> Options:
        """Relative paths start at the folder where pytest was started, default paths at the project.

        Raises:
            pytest.UsageError: a value is invalid, or options contradict each other.
        """
        rounds = config.getoption("rounds")
        if rounds < 2:
            raise pytest.UsageError(f"--rounds {rounds}: at least 2 are needed to compare the first with the last.")
        difference = _difference(config)
        if config.getoption("golden_errors") and not config.getoption("golden_update"):
            raise pytest.UsageError("--golden-errors accepts what cases raise: add --golden-update.")
        pictures_only = config.getoption("pictures_only")
        if pictures_only and config.getoption("golden_update") and not difference:
            raise pytest.UsageError("--golden-update accepts pictures and work together: leave out --pictures-only.")
        shard = _shard(config)

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
            golden_difference=difference,
            golden_errors=config.getoption("golden_errors"),
            golden_calibrate=config.getoption("golden_calibrate") or config.getoption("golden_remeasure"),
            golden_remeasure=config.getoption("golden_remeasure"),
            results=path("results", config.rootpath / "results"),
            slow="slow" in (config.getoption("markexpr") or ""),
            pictures_only=pictures_only,
            shard=shard,
            shard_durations=path("shard_durations", Path()) if config.getoption("shard_durations") else None,
            resume=config.getoption("resume"),
        )


def _shard(config: pytest.Config) -> tuple[int, int] | None:
    text = config.getoption("shard")
    if text is None:
        if config.getoption("shard_durations"):
            raise pytest.UsageError("--shard-durations says how long cases take: give --shard too, such as 1/5.")
        return None
    try:
        return parse_shard(text)
    except ValueError as error:
        raise pytest.UsageError(f"--shard {text}: {error}") from None


def parse_shard(text: str) -> tuple[int, int]:
    """Index and number of the shards in a text such as ``2/5``.

    Raises:
        ValueError: the text is something else; one sentence.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match:
        raise ValueError("give the number of this shard and how many there are, such as 2/5.")
    index, count = map(int, match.groups())
    if not 1 <= index <= count:
        shards = f"shards count from 1/{count} to {count}/{count}" if count else "there is at least one shard, 1/1"
        raise ValueError(f"{shards}.")
    return index, count


def _difference(config: pytest.Config) -> Difference | None:
    when, reason = config.getoption("golden_for"), (config.getoption("golden_reason") or "").strip()
    if not when and not reason:
        return None
    if not when:
        raise pytest.UsageError(
            "--golden-reason says why releases differ: give --golden-for too, such as diffusers<0.31."
        )
    if not config.getoption("golden_update"):
        raise pytest.UsageError("--golden-for names the releases for which to accept pictures: add --golden-update.")
    if not reason:
        raise pytest.UsageError('--golden-for needs --golden-reason "…": one sentence that says why these differ.')
    if config.getoption("golden_level") != "auto":
        raise pytest.UsageError("--golden-for does not replace the golden: leave out --golden-level.")
    for text in when:
        try:
            read_requirement(text)
        except ValueError as error:
            raise pytest.UsageError(f"--golden-for: {error}.") from None
    return Difference(when=tuple(when), reason=reason)


@dataclass(frozen=True)
class UpgradeOptions:
    """The two sides of an upgrade check and how they are compared.

    Attributes:
        folder: where relative paths of the sides start.
        environments: where environments are cached.
        budget_s: seconds of measuring, for all cases together.
        min_change: smallest change of a case that matters, as a share.
        min_component_change: the same of a component that changes no case so much.
        must_decide: whether an undecided speed fails.
    """

    baseline: str
    candidate: str
    folder: Path
    environments: Path
    budget_s: float
    min_change: float
    min_component_change: float
    must_decide: bool
    pictures_only: bool

    @classmethod
    def environments_folder(cls, config: pytest.Config) -> Path:
        given = config.getoption("environments")
        return config.invocation_params.dir / given if given else config.rootpath / ".environments"

    @classmethod
    def from_config(cls, config: pytest.Config) -> UpgradeOptions | None:
        """``None`` if neither side was given.

        Raises:
            pytest.UsageError: a value is invalid.
        """
        baseline, candidate = config.getoption("baseline"), config.getoption("candidate")
        if baseline is None and candidate is None:
            return None
        return cls(
            baseline=CURRENT if baseline is None else baseline,
            candidate=CURRENT if candidate is None else candidate,
            folder=config.invocation_params.dir,
            environments=cls.environments_folder(config),
            budget_s=_amount(config, "budget", seconds),
            min_change=_amount(config, "min_change", percent),
            min_component_change=_amount(config, "min_component_change", percent),
            must_decide=config.getoption("must_decide"),
            pictures_only=config.getoption("pictures_only"),
        )


def _amount(config: pytest.Config, name: str, read: Callable[[str], float]) -> float:
    text = config.getoption(name)
    try:
        return read(text)
    except ValueError as error:
        raise pytest.UsageError(f"--{name.replace('_', '-')} {text}: {error}") from None


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "diffusion pipelines: speed and golden pictures")
    group.addoption("--suite", metavar="PATH", help="models and cases to run (default: bench/suite.toml)")
    group.addoption(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="only this model of the suite; repeatable. Hub models run only if named "
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
        help="accept pictures and work of the selected cases as their goldens; the run fails if it wrote any",
    )
    group.addoption(
        "--golden-level",
        choices=LEVELS,
        default="auto",
        help=f"where --golden-update writes: {LEVELS_HELP}",
    )
    group.addoption(
        "--golden-errors",
        action="store_true",
        help="with --golden-update: accept what a case raises also where it names no issue in the suite file; "
        "failures of memory or device are never accepted",
    )
    group.addoption(
        "--golden-for",
        action="append",
        default=[],
        metavar="RANGE",
        help="with --golden-update: keep the goldens, and accept what the selected cases show as a known difference "
        "with these releases (diffusers<0.31); repeatable, then all ranges must match",
    )
    group.addoption("--golden-reason", metavar="SENTENCE", help="why the releases of --golden-for differ")
    group.addoption(
        "--golden-calibrate",
        action="store_true",
        help="with -m golden: instead of checking the selected cases, measure how far harmless differences between "
        "machines (rounding twins, threads, kernels, instructions, batches) move each of them, and write the limits "
        "that follow, with this evidence, into their goldens' origins; earlier evidence for this kind of "
        "processor is kept; fails for a case that cannot be calibrated or whose limits detect nothing",
    )
    group.addoption(
        "--golden-remeasure", action="store_true", help="like --golden-calibrate, but measure all evidence again"
    )
    group.addoption(
        "--pictures-only",
        action="store_true",
        help="judge the pictures alone: no work is counted, and an upgrade check measures neither time nor memory",
    )
    group.addoption("--results", metavar="PATH", help="where each run gets its folder (default: results/)")
    group.addoption(
        "--resume", nargs="?", const=LATEST, metavar="RUN", help="continue an interrupted run in its folder "
        "(default: the latest run)"
    )  # fmt: skip
    group.addoption(
        "--shard", metavar="I/N", help="run only this part of the chosen cases: 2/5 is the second of five, which "
        "take about the same time; python -m bench.report merges the results of all"
    )  # fmt: skip
    group.addoption(
        "--shard-durations", metavar="RUN", help="split by how long the cases of this run took; give the same to all "
        "shards (default: an estimate from the settings)"
    )  # fmt: skip
    _add_upgrade_options(parser)


def _add_upgrade_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("upgrade", "two installs side by side: pictures, speed and memory")
    side = (
        "requirements (diffusers==0.41.0; a bare name: its newest release), a wheel, a checkout, git+https://…@ref, "
        "-r FILE, the folder of a virtual environment, or 'current'"
    )
    group.addoption("--baseline", metavar="SIDE", help=f"compare with this install (default: current): {side}")
    group.addoption("--candidate", metavar="SIDE", help="compare this install with the baseline (default: current)")
    group.addoption(
        "--budget", default="5m", metavar="TIME", help="longest time of measuring, for all cases together (default: 5m)"
    )
    group.addoption(
        "--min-change", default="3%", metavar="PERCENT", help="smallest change of time or memory that matters "
        "(default: 3%%)"
    )  # fmt: skip
    group.addoption(
        "--min-component-change", default="10%", metavar="PERCENT", help="smallest change of a part of a pipeline that "
        "fails although it changes no case by --min-change (default: 10%%)"
    )  # fmt: skip
    group.addoption("--must-decide", action="store_true", help="fail if a speed is undecided when the budget is spent")
    group.addoption("--environments", metavar="PATH", help="where environments are cached (default: .environments/)")
    group.addoption("--environments-list", action="store_true", help="list the cached environments and stop")
    group.addoption("--environments-prune", action="store_true", help="remove cached environments not in use and stop")
