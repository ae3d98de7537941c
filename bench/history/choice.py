"""What a command over releases works on: the options that these commands share, and the cases."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from bench.calls.device import Device, choose_device, slow_dtypes
from bench.calls.pipelines import Checkpoint, find_checkpoint
from bench.errors import UsageError
from bench.installs.releases import parse_range, releases_between
from bench.installs.sides import parse_side
from bench.suite.case import Case
from bench.suite.file import SUITE_FILE, Suite, read_suite
from bench.suite.selection import is_slow
from bench.upgrade.request import load_request

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "golden"


@dataclass(frozen=True)
class Choice:
    """The library, the releases and the device of one command.

    Attributes:
        releases: oldest first.
        span: the range as the user wrote it.
        alongside: requirements installed with each release; may be empty.
        environments: where environments are cached.
        results: where each run gets its folder.
    """

    library: str
    releases: tuple[Version, ...]
    span: str
    alongside: str
    suite: Suite
    device: Device
    environments: Path
    results: Path

    def side_of(self, release: Version) -> str:
        """The side, as text, that has this release."""
        return f"{self.library}=={release} {self.alongside}".strip()


def parse_options(make_parser: Callable[..., argparse.ArgumentParser], arguments: Sequence[str] | None) -> Any:
    """The options of a command line; ``--with`` takes requirements in one pair of quotes or as several words.

    It takes several words only if one would leave words over, so that ``--with A library FIRST..LAST`` works.

    Raises:
        SystemExit: with exit code 4, after a sentence on the mistake.
    """
    options, rest = make_parser().parse_known_args(arguments)
    if not rest:
        return options
    options = make_parser(several=True).parse_args(arguments)
    options.alongside = " ".join(options.alongside)
    return options


def add_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """``several``: ``--with`` takes each requirement as a separate word."""
    parser.add_argument("library", help="name on the package index, such as diffusers")
    parser.add_argument("span", metavar="FIRST..LAST", help="range of releases, both ends included: 0.34.0..0.42.1")
    parser.add_argument(
        "--with",
        dest="alongside",
        nargs="+" if several else None,
        default="",
        metavar="REQUIREMENT",
        help="install this with each release: transformers==4.57.6; several may follow each other",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, xpu, … (default: auto)")
    parser.add_argument("--suite", type=Path, default=SUITE_FILE, metavar="PATH", help="models and cases")
    parser.add_argument("--results", type=Path, default=ROOT / "results", metavar="PATH", help="default: results/")
    parser.add_argument(
        "--environments", type=Path, default=ROOT / ".environments", metavar="PATH", help="default: .environments/"
    )


def read_choice(options: argparse.Namespace, *, every: bool) -> Choice:
    """What the options ask for; the releases come from the package index.

    Args:
        every: all releases; otherwise the newest of each minor version, and the oldest of all.

    Raises:
        BenchError: an option is wrong, or the releases cannot be listed.
    """
    first, last = parse_range(options.span)
    _check_alongside(options.library, options.alongside)
    suite, device = read_suite(options.suite), choose_device(options.device)
    releases = releases_between(options.library, first, last, every)
    if len(releases) < 2:
        raise UsageError(
            f"{options.library} has only one release from {first} to {last}, {releases[0]}, so there is nothing to "
            "compare; give a wider range."
        )
    return Choice(
        library=options.library,
        releases=releases,
        span=options.span,
        alongside=options.alongside.strip(),
        suite=suite,
        device=device,
        environments=options.environments.absolute(),
        results=options.results.absolute(),
    )


def _check_alongside(library: str, alongside: str) -> None:
    if not alongside.strip():
        return
    for requirement in parse_side(alongside, Path.cwd()).requirements:
        try:
            name = Requirement(requirement).name
        except InvalidRequirement:  # a path or an address
            continue
        if canonicalize_name(name) == canonicalize_name(library):
            raise UsageError(
                f"--with {shlex.quote(alongside)}: names {library} itself; give its releases as FIRST..LAST."
            )


def default_cases(suite: Suite, device: Device, *, sentinels: bool) -> tuple[Case, ...]:
    """The cases that run by default: not slow, and not of a hub model."""
    slow = slow_dtypes(device)
    usable = (case for case in suite.cases if case.model.source != "hub" and not is_slow(case, slow))
    return tuple(case for case in usable if sentinels or not case.settings.sentinel)


class Requests:
    """The requests with which a worker loads each case; each checkpoint is searched for once."""

    def __init__(self, suite: Suite, device: Device) -> None:
        self._suite = suite
        self._device = device
        self._checkpoints: dict[str, Checkpoint] = {}

    def of(self, case: Case, threads: int = 0) -> dict[str, Any]:
        """``threads`` as in ``load_request``; 0 leaves torch's default.

        Raises:
            PipelineError: the model of the case has no checkpoint.
        """
        name = case.model.name
        if name not in self._checkpoints:
            self._checkpoints[name] = find_checkpoint(case.model, self._suite.file.parent)
        return load_request(case, self._checkpoints[name], str(self._device.torch_device), threads)
