"""The proof of the speed verdicts: false alarms between two equal sides, and known slow-downs found.

``python -m bench.upgrade.power run`` measures decisions in random order and appends each to a file, so that it can be
stopped and gone on with; ``python -m bench.upgrade.power report`` judges what is there, also by the rules that others
use, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.device import Cpu
from bench.pipelines import find_checkpoint
from bench.suite import SUITE_FILE, Case, read_suite
from bench.upgrade.comparison import SIDES, Plan, load_request, measure_until_decided
from bench.upgrade.lockstep import PairedCall, Places, places_for
from bench.upgrade.slow_down import choose_layers
from bench.upgrade.workers import Sides, WorkerProcess, fresh

CASES = ("emoji-sd/pndm-s5-g7.5-fp32", "emoji-sd/pndm-s5-g7.5-bf16", "emoji-ddpm/ddim-s20-fp32")
# One block of decisions: (share of more work in the UNet, how many).
BLOCK = ((0.0, 10), (0.03, 1), (0.05, 1), (0.10, 1))
DECISIONS = Path("results/power/decisions.jsonl")
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Trial:
    """The raw data of one decision; ``calls`` as seconds of the segments per pair, call and side."""

    case: str
    slow_down: float
    budget_s: float
    began: float
    seconds: float
    calls: list[list[tuple[list[float], list[float]]]]

    @property
    def paired_calls(self) -> list[list[PairedCall]]:
        return [[PairedCall(before, after, ("", "")) for before, after in pair] for pair in self.calls]


def _blocks(rng: random.Random) -> Iterator[tuple[float, str]]:
    while True:
        block = [slow_down for slow_down, count in BLOCK for _ in range(count)]
        rng.shuffle(block)
        for slow_down in block:
            yield slow_down, rng.choice(CASES)


def measure(blocks: int, budget_s: float, decisions: Path, rng: random.Random) -> None:
    """Measures ``blocks`` blocks of decisions and appends each to the file."""
    cases: dict[str, Case] = {case.id: case for case in read_suite().cases}
    plan = Plan(places_for("cpu"), budget_s=budget_s)
    requests = {
        name: load_request(
            cases[name],
            find_checkpoint(cases[name].model, SUITE_FILE.parent),
            str(Cpu().torch_device),
            plan.places.threads,
        )
        for name in CASES
    }
    decisions.parent.mkdir(parents=True, exist_ok=True)
    per_block = sum(count for _, count in BLOCK)
    trials = _blocks(rng)
    with Sides(dict.fromkeys(SIDES, Path(sys.executable)), TIMEOUT_S) as sides:
        print("choosing the layers that the slow candidates repeat", flush=True)
        layers = {name: _layers_to_repeat(sides.take()[0], requests[name], plan.places) for name in CASES}
        for number in range(blocks * per_block):
            slow_down, name = next(trials)
            began = time.time()
            slowed = requests[name] | {"repeated_layers": layers[name][slow_down]}
            samples = measure_until_decided(sides, (requests[name], slowed), plan, rng=rng)
            calls = [[(call.baseline, call.candidate) for call in pair] for pair in samples.calls]
            trial = Trial(name, slow_down, budget_s, began, samples.seconds, calls)
            with decisions.open("a") as file:
                file.write(json.dumps(asdict(trial)) + "\n")
            print(
                f"[{number + 1}/{blocks * per_block}] {name} +{slow_down:.0%}: {len(calls)} pairs, "
                f"{samples.seconds:.0f} s, {statistics.fmean(samples.log_ratios):+.1%}",
                flush=True,
            )


def _layers_to_repeat(worker: WorkerProcess, request: dict[str, Any], places: Places) -> dict[float, list[str]]:
    """Per slow-down, the layers of the UNet whose time is that share of its forward."""
    with fresh(worker) as process:
        process.ask("load", cores=list(places.halves[0]), **request)
        costs, _ = process.ask("layers")
    return {share: choose_layers(costs["layers"], share * costs["whole"]) for share, _ in BLOCK}


def read_trials(decisions: Path) -> list[Trial]:
    return [Trial(**json.loads(line)) for line in decisions.read_text().splitlines()]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.upgrade.power", description=__doc__.split("\n")[0])
    parser.add_argument("do", choices=("run", "report"))
    parser.add_argument("--blocks", type=int, default=20, help="blocks of 13 decisions (default: 20)")
    parser.add_argument("--budget", type=float, default=60.0, metavar="SECONDS", help="per decision (default: 60)")
    parser.add_argument("--decisions", type=Path, default=DECISIONS, metavar="PATH")
    options = parser.parse_args(arguments)
    if options.do == "run":
        measure(options.blocks, options.budget, options.decisions, random.Random())
    print(f"decisions: {options.decisions}")


if __name__ == "__main__":
    main()
