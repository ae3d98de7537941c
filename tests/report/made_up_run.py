"""A made-up run of any size, to test and measure the report: ``python -m tests.report.made_up_run 500 FOLDER``."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from PIL import Image

from bench.calls.phases import Phases
from bench.calls.work import Work
from bench.command import CommandParser, run_command
from bench.pictures.compared import ComparedWork, Pictures
from bench.pictures.grids import make_grid, split_grid
from bench.pictures.limits import PORTABLE, default_limits
from bench.pictures.similarity import compare
from bench.record.folder import ENVIRONMENTS, RunFolder
from bench.record.record import Record
from bench.record.run_info import RunInfo, write_run_info
from bench.verdicts import Verdict

GOLDENS = Path(__file__).parents[2] / "golden" / "emoji-sd"
SCHEDULERS = ("pndm", "ddim", "euler", "dpmpp-2m", "unipc", "heun")
PROMPTS = ("panda", "fox on a blue background", "rocket on a purple background", "strawberry on a green background")
TILES = 4


def _pictures(path: Path, changed: bool) -> tuple[list[Image.Image], list[Image.Image]]:
    """The tiles of the made-up run, and those of its golden."""
    with Image.open(path) as opened:
        golden = split_grid(opened.convert("RGB"), TILES)
    made = list(golden)
    if changed:
        made[2] = made[2].rotate(8, fillcolor=(255, 255, 255))
    return made, golden


def _work(steps: int) -> ComparedWork:
    """A realistic amount of work: sixty kinds of operators, in proportion to the steps."""
    counts = Work(
        operators={f"aten::operator{number:02d}": (number + 1) * steps for number in range(60)},
        host_syncs={"aten::_local_scalar_dense": steps + 1},
        copies=18 * steps,
        copied_bytes=2_000_000 * steps,
        peak_bytes=90_000_000,
        unet_calls=steps,
        flops=3_000_000_000 * steps,
        tokens=2 * TILES * 16,
    )
    return ComparedWork(verdict=Verdict.SAME_WORK, message=Verdict.SAME_WORK, counts=counts.to_json())


def _records(count: int, changed_every: int, prompts: Sequence[str], folder: RunFolder) -> Iterator[Record]:
    rng = random.Random(count)
    paths = sorted(path for path in GOLDENS.glob("*.png") if not {*path.name} & {"@", "+"})
    for number in range(count):
        scheduler = SCHEDULERS[number % len(SCHEDULERS)]
        steps = 5 + number // len(SCHEDULERS)
        dtype = ("float32", "bfloat16")[number % 2]
        case = f"emoji-sd/{scheduler}-s{steps}-g7.5-{dtype}"
        changed = bool(changed_every) and number % changed_every == 0
        made, golden = _pictures(paths[number % len(paths)], changed)
        limits = default_limits(dtype, PORTABLE)
        similarity = compare(made, golden)
        verdict = similarity.verdict(limits)
        folder.save_picture(case, make_grid(made))
        if changed:
            folder.save_picture(case, make_grid(golden), "golden")
        step_s = 0.04 * (1.4 if dtype == "float32" else 1.0)
        samples = tuple(steps * step_s * rng.uniform(0.98, 1.05) for _ in range(3))
        middle = median(samples)
        yield Record(
            schema=1,
            case=case,
            model="emoji-sd",
            settings={
                "scheduler": scheduler, "steps": steps, "guidance": 7.5, "dtype": dtype, "seed": 0, "images": TILES,
                "prompts": list(prompts), "size": None, "optimizations": [], "slow": False,
            },
            device="cpu",
            environment="sample",
            load_s=0.3,
            first_call_s=samples[0] * 1.4,
            samples_s=samples,
            median_s=middle,
            mad_s=median(abs(sample - middle) for sample in samples),
            unet_calls=steps,
            phases_s=Phases(
                text_encoding=0.01, denoising=(step_s,) * steps, unet_calls=(1,) * steps, decoding=0.03
            ),
            peak_memory_reason="a made-up run",
            pictures=Pictures.of(
                similarity,
                verdict=verdict,
                message=verdict if verdict.passes else ", ".join(similarity.excesses(limits)),
                limits=limits,
            ),
            work=_work(steps),
            verdict=verdict,
        )  # fmt: skip


def make_run(folder: Path, count: int, *, changed_every: int = 50, prompts: Sequence[str] = PROMPTS) -> Path:
    """Writes a run of ``count`` cases with 64-pixel tiles; every ``changed_every``-th one differs from its golden.

    Args:
        folder: where the run is written; created.
        changed_every: 0 for none.
        prompts: four.
    """
    run = RunFolder(folder.parent, folder.name)
    planned = []
    for record in _records(count, changed_every, prompts, run):
        run.append(record)
        planned.append(record.case)
    environment = {"libraries": {"diffusers": "0.0"}, "device": "cpu", "device_name": "made up", "threads": 1}
    (run.make() / ENVIRONMENTS).write_text(json.dumps({"sample": environment}))
    notes = RunInfo(schema=1, command="pytest bench", began="2000-01-01", ended="2000-01-02", planned=tuple(planned))
    write_run_info(run.path, notes)
    return run.path


def run(options: argparse.Namespace) -> int:
    print(make_run(options.folder, options.count, changed_every=options.changed_every))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m tests.report.made_up_run", description=__doc__.split(":", maxsplit=1)[0])
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--changed-every", type=int, default=50, metavar="N", help="0 for none (default: 50)")
    return run_command(parser.prog, run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
