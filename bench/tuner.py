"""The best picture for the least time: searches the settings of a model on this device.

``tox run -e tune`` is ``python -m bench.tuner``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.calls.device import Device, choose_device, is_simulated, slow_dtypes
from bench.command import CommandParser, run_command
from bench.console import announce, shown
from bench.errors import UsageError
from bench.files import write_atomically
from bench.record.environment import describe_environment
from bench.record.folder import RunFolder, new_run_name
from bench.report.page import Page
from bench.report.write import write_report
from bench.suite.file import SUITE_FILE, Suite, read_suite
from bench.suite.selection import model_named
from bench.tune.code import case_table_text, python_of, suite_of
from bench.tune.errors import TuneError
from bench.tune.export import write_goldens
from bench.tune.outcome import PICKED_CASES, PICKS, TUNE, PickFound, TuneFound, read_found, write_found
from bench.tune.quality import measure_named
from bench.tune.search import Search, Shuffled
from bench.tune.space import Space, space_of
from bench.tune.study import Study, open_storage, open_study
from bench.tune.tables import front_table, left_out_lines, pick_lines
from bench.tune.trial import Studio
from bench.tune.worker import Worker
from bench.upgrade.amounts import seconds

PROG = "tune"
ROOT = Path(__file__).parents[1]
RESULTS = Path("results/tune")
STUDY_FILE = "study.json"
BUDGET = "10m"
# Below this likeness to the reference most pictures show something else, or noise (looked at, emoji-sd).
MIN_QUALITY = 0.8


@dataclass(frozen=True)
class StudyOptions:
    """What a study is about, so that ``--resume NAME`` is enough to continue."""

    suite: str
    model: str
    device: str
    min_quality: float
    quality: str | None
    storage: str | None
    max_time: float | None


def chosen_options(options: argparse.Namespace, folder: RunFolder) -> StudyOptions:
    """Those of the command line, or those of the study that is continued.

    Raises:
        UsageError: there is no such study.
    """
    if options.resume:
        file = folder.path / STUDY_FILE
        try:
            return StudyOptions(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise UsageError(f"--resume {options.resume}: no study in {shown(folder.path)}.") from None
    return StudyOptions(
        suite=str(options.suite.resolve()),
        model=options.model or "",
        device=options.device,
        min_quality=options.min_quality,
        quality=options.quality,
        storage=options.storage,
        max_time=seconds(options.max_time) if options.max_time else None,
    )


def search(options: argparse.Namespace) -> int:
    """Searches, measures the front again, and writes everything; returns the exit code.

    Raises:
        BenchError: something that was asked for is not available.
    """
    name = options.resume or options.study or new_run_name()
    folder = RunFolder((ROOT / options.results).resolve(), name)
    asked = chosen_options(options, folder)
    suite = read_suite(Path(asked.suite))
    model, device = model_named(suite, asked.model or suite.models[0].name), choose_device(asked.device)
    if is_simulated(device):
        raise UsageError("--device sim: times on the simulated accelerator mean nothing, so there is nothing to tune.")
    measure = measure_named(asked.quality)
    tuning = suite.tunings[model.name]
    space = space_of(model, tuning, device.type, slow_dtypes(device), by_likeness=not asked.quality)
    folder.check_place()
    study = open_study(
        name,
        Shuffled(space) if options.exhaustive else Search(space, asked.min_quality),
        open_storage(asked.storage, folder.make()),
        asked.storage or shown(folder.path),
        options.seed,
    )
    write_atomically(folder.path / STUDY_FILE, json.dumps(asdict(asked), indent=2) + "\n")
    budget_s = None if options.exhaustive else seconds(options.budget)
    worker = Worker(
        studio=Studio(device, suite.file.parent, space, measure, asked.min_quality),
        study=study,
        folder=folder,
        budget_s=budget_s,
        min_quality=asked.min_quality,
        announce=announce,
        max_seconds=asked.max_time,
        rng=random.Random(options.seed),
    )
    for line in opening_lines(space, device, study, budget_s):
        announce(line)
    try:
        return conclude(worker, asked, suite, device)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what was tried is kept; continue with --resume {name}") from None
    except OSError as error:
        raise TuneError(
            f"{shown(folder.path)}: cannot be written ({error.strerror or error}); "
            f"what was tried is kept, continue with --resume {name}."
        ) from error


def opening_lines(space: Space, device: Device, study: Study, budget_s: float | None) -> list[str]:
    """What the search is about, before it begins."""
    released = study.release_dead()
    known = len(study.tried())
    time = "until all are tried" if budget_s is None else f"for up to {budget_s:.0f} s"
    lines = [
        f"{space.model.name} on {device.type} ({device.name}): {len(space.cases)} settings, {time}",
        *left_out_lines(space.left_out),
        f"study: {study.optuna.study_name} ({study.where})",
    ]
    if known or released:
        lines.append(f"continuing: {known} settings were tried before, {released} were left by workers that died")
    return lines


def conclude(worker: Worker, asked: StudyOptions, suite: Suite, device: Device) -> int:
    """Searches and ends with the front, its pictures, the picks and the report."""
    space, folder = worker.studio.space, worker.folder
    references = worker.references()
    worker.search(references)
    front = worker.front()
    tried = worker.study.tried()
    if not front:
        failed = worker.study.failed()
        why = f" {next(iter(failed.values()))}" if failed else ""
        raise TuneError(
            f"no setting reached a quality of {worker.min_quality:g}: {len(tried)} were tried, {len(failed)} cannot be "
            f"used;{why or ' give more time with --budget, or a lower --min-quality'}."
        )
    worker.save_pictures(front, references)
    picks = worker.picks(front, tried)
    found = TuneFound(
        schema=1,
        study=folder.name,
        model=space.model.model_dump(mode="json"),
        suite=asked.suite,
        device=device.type,
        device_name=device.name,
        environment=describe_environment(device, ROOT),
        settings=len(space.cases),
        left_out=dict(space.left_out),
        reference=space.reference.id,
        start=space.start.id,
        quality=asked.quality or "mean SSIM to the reference",
        min_quality=worker.min_quality,
        max_seconds=worker.max_seconds,
        tried=tuple(tried),
        failed=worker.study.failed(),
        front=tuple(front),
        picks=tuple(PickFound(name=pick.name, case=pick.tried.case, reason=pick.reason) for pick in picks),
        seconds=worker.seconds,
        is_exhaustive=worker.budget_s is None,
    )
    write_found(folder.path / TUNE, found)
    write_picks(found, space, folder, device)
    page = write_report(folder.path)
    announce_end(found, folder, page)
    return 0


def write_picks(found: TuneFound, space: Space, folder: RunFolder, device: Device) -> None:
    """Each pick as a program, and all of them as cases of a suite file."""
    cases = list({pick.case: space.cases[pick.case] for pick in found.picks}.values())
    target = folder.path / PICKS
    target.mkdir(exist_ok=True)
    for pick in found.picks:
        program = python_of(space.cases[pick.case], str(device.torch_device), Path(found.suite).parent)
        write_atomically(target / pick.program, program)
    write_atomically(target / PICKED_CASES, "\n".join(case_table_text(case) for case in cases))


def announce_end(found: TuneFound, folder: RunFolder, page: Page) -> None:
    announce("")
    announce(front_table(found, sys.stdout.isatty()))
    for line in pick_lines(found):
        announce(line)
    announce(f"as code and as cases: {shown(folder.path / PICKS)}")
    announce(f"results: {shown(folder.path)}")
    announce(f"report: {page.within(shown(page.path))}")
    announce(f"to guard them from now on: tox run -e tune -- --export {found.study}")


def export(options: argparse.Namespace) -> int:
    """Writes the front of a study as a suite file with goldens.

    Raises:
        UsageError: there is no such study, or it has not ended yet.
    """
    folder = RunFolder((ROOT / options.results).resolve(), options.export)
    try:
        found = read_found(folder.path / TUNE)
    except (OSError, ValueError):
        raise UsageError(f"--export {options.export}: no finished study in {shown(folder.path)}.") from None
    suite = read_suite(Path(found.suite))
    model = model_named(suite, str(found.model["name"]))
    device = choose_device(found.device)
    space = space_of(model, suite.tunings[model.name], device.type, slow_dtypes(device), by_likeness=False)
    cases = [space.cases[timed.case] for timed in found.front if timed.case in space.cases]
    target = folder.path / "export"
    target.mkdir(exist_ok=True)
    file = target / "suite.toml"
    write_atomically(file, suite_of(model, cases, suite.file.parent))
    for case in cases:
        program = python_of(case, str(device.torch_device), suite.file.parent)
        write_atomically(target / f"{case.id.partition('/')[2]}.py", program)
    write_goldens(read_suite(file), target / "golden", device, announce)
    options_of_suite = f"--suite={shown(file)} --golden-dir={shown(target / 'golden')}"
    announce(f"{len(cases)} cases with goldens: {shown(file)}; look at the pictures in {shown(target / 'golden')}")
    announce(f"check an upgrade: tox run -e upgrade -- --candidate diffusers==X {options_of_suite}")
    return 0


def run(options: argparse.Namespace) -> int:
    return export(options) if options.export else search(options)


def parser() -> argparse.ArgumentParser:
    top = CommandParser(prog=PROG, description=__doc__.split("\n")[0])
    which = top.add_mutually_exclusive_group()
    which.add_argument("--study", metavar="NAME", help="name of the study (default: the time)")
    which.add_argument("--resume", metavar="NAME", help="continue this study")
    which.add_argument("--export", metavar="NAME", help="the front of this study as a suite file with goldens")
    top.add_argument("--model", metavar="NAME", help="of the suite file (default: its first model)")
    top.add_argument("--suite", type=Path, default=SUITE_FILE, metavar="PATH")
    top.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps or xpu (default: auto)")
    top.add_argument("--budget", default=BUDGET, metavar="TIME", help="such as 90s, 10m or 2h (default: %(default)s)")
    top.add_argument("--max-time", metavar="TIME", help="longest time per picture of a pick, such as 1.5s")
    top.add_argument(
        "--min-quality",
        type=float,
        default=MIN_QUALITY,
        metavar="Q",
        help="lowest quality that is acceptable (default: %(default)g)",
    )
    top.add_argument(
        "--quality", metavar="MODULE:FUNCTION", help="your own measure: pictures, references, prompts -> number"
    )
    top.add_argument("--storage", metavar="URL", help="a database that several workers share (default: a file)")
    top.add_argument("--exhaustive", action="store_true", help="try every setting, however long that takes")
    top.add_argument("--seed", type=int, help="of the search")
    top.add_argument("--results", type=Path, default=RESULTS, metavar="PATH", help="(default: %(default)s)")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    top = parser()
    options = top.parse_args(arguments)
    for name in ("budget", "max_time"):
        text = getattr(options, name)
        try:
            if text:
                seconds(text)
        except ValueError as error:
            top.error(f"--{name.replace('_', '-')} {text}: {error}")
    return run_command(PROG, run, options)


if __name__ == "__main__":
    sys.exit(main())
