"""How soon the search finds the front, against Optuna's own samplers and chance.

``python -m bench.tune.comparison results/tune/<study>/tune.json`` replays a study that tried every setting
(``tox run -e tune -- --exhaustive``): each search is given the times, qualities and costs that were measured, so a
search over minutes is repeated in seconds. Its own thinking costs nothing here; it is reported apart.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import optuna
from optuna.trial import TrialState

from bench.command import CommandParser, run_command
from bench.console import announce
from bench.errors import UsageError
from bench.suite.file import read_suite
from bench.suite.selection import model_named
from bench.tune.front import hypervolume
from bench.tune.outcome import TuneFound, read_found
from bench.tune.result import Tried
from bench.tune.search import Chooser, Known, Search, Shuffled
from bench.tune.space import Space, space_of
from bench.tune.study import case_of_trial, distributions, quiet_optuna

PROG = "python -m bench.tune.comparison"
# Of the time that the whole grid took.
SHARES = (0.05, 0.10, 0.15, 0.20, 0.30)
SEEDS = 5
# A sampler that proposes so many known settings in a row has no other idea.
MOST_REPEATS = 200

# Yields the ids of settings in the order in which a search tries them.
Order = Callable[["Grid", int], Iterator[str]]


@dataclass(frozen=True)
class Grid:
    """Every setting of a space, as it was measured."""

    space: Space
    results: Mapping[str, Tried]
    min_quality: float

    @property
    def seconds(self) -> float:
        """That trying every setting took."""
        return sum(one.cost_s for one in self.results.values())

    def area(self, names: Sequence[str]) -> float:
        """What the front of these settings beats, with time as its logarithm."""
        longest = max(math.log(one.seconds) for one in self.results.values())
        found = (self.results[name] for name in names)
        points = [(math.log(one.seconds), one.quality) for one in found if one.complete]
        return hypervolume(points, (longest, self.min_quality))


def grid_of(found: TuneFound) -> Grid:
    """Raises:
    UsageError: the study did not try every setting.
    """
    if not found.is_exhaustive:
        raise UsageError(f"study {found.study} tried a part of the settings: run it with --exhaustive.")
    suite = read_suite(Path(found.suite))
    model = model_named(suite, str(found.model["name"]))
    space = space_of(model, suite.tunings[model.name], found.device)
    results = {one.case: one for one in found.tried if one.case in space.cases}
    kept = {name: case for name, case in space.cases.items() if name in results}
    return Grid(Space(model, space.tuning, kept, {}, space.start, space.reference), results, found.min_quality)


def chosen_by(chooser: Callable[[Grid], Chooser]) -> Order:
    def order(grid: Grid, seed: int) -> Iterator[str]:
        rng, search = np.random.default_rng(seed), chooser(grid)
        known: dict[str, Known] = {}
        while name := search.next(known, known, rng):
            known[name] = Known(grid.results[name].seconds, grid.results[name].quality)
            yield name

    return order


def sampled_by(sampler: Callable[[int], optuna.samplers.BaseSampler]) -> Order:
    """The order of one of Optuna's samplers; where it proposes a setting again, it gets the same result again."""

    def order(grid: Grid, seed: int) -> Iterator[str]:
        study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler(seed))
        study.enqueue_trial(dict(zip(grid.space.axes, grid.space.place(grid.space.start), strict=True)))
        tried: set[str] = set()
        repeats = 0
        while len(tried) < len(grid.results) and repeats < MOST_REPEATS:
            trial = study.ask(distributions(grid.space))
            case = case_of_trial(trial, grid.space)
            if case is None:
                study.tell(trial, state=TrialState.FAIL)
                repeats += 1
                continue
            one = grid.results[case.id]
            study.tell(trial, [math.log(one.seconds), one.quality])
            repeats = repeats + 1 if case.id in tried else 0
            if case.id not in tried:
                tried.add(case.id)
                yield case.id

    return order


SEARCHES: Mapping[str, Order] = {
    "this search": chosen_by(lambda grid: Search(grid.space, grid.min_quality)),
    "TPE": sampled_by(lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "NSGA-II": sampled_by(lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
    "Gaussian process": sampled_by(lambda seed: optuna.samplers.GPSampler(seed=seed)),
    "chance": chosen_by(lambda grid: Shuffled(grid.space)),
}


def shares_found(grid: Grid, order: Order, seed: int) -> tuple[list[float], float]:
    """The share of the grid's area that is found after each of ``SHARES``, and the seconds of thinking."""
    whole, budget = grid.area(list(grid.results)), grid.seconds
    found: list[float] = []
    names: list[str] = []
    spent = 0.0
    began = time.perf_counter()
    for name in order(grid, seed):
        spent += grid.results[name].cost_s
        while len(found) < len(SHARES) and spent > SHARES[len(found)] * budget:
            found.append(grid.area(names) / whole)
        if len(found) == len(SHARES):
            break
        names.append(name)
    found += [grid.area(names) / whole] * (len(SHARES) - len(found))
    return found, time.perf_counter() - began


def table(grid: Grid, seeds: int, announce: Callable[[str], None]) -> str:
    """Median and worst share of the area, as Markdown."""
    head = " | ".join(f"{share:.0%} of the time" for share in SHARES)
    lines = [f"| search | {head} | thinking |", f"| --- |{' ---: |' * (len(SHARES) + 1)}"]
    for name, order in SEARCHES.items():
        runs = []
        for seed in range(seeds):
            runs.append(shares_found(grid, order, seed))
            announce(f"{name}, seed {seed}: {', '.join(f'{share:.1%}' for share in runs[-1][0])}")
        columns = zip(*(shares for shares, _ in runs), strict=True)
        cells = [f"{median(column):.1%} ({min(column):.1%})" for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} | {median(thought for _, thought in runs):.0f} s |")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    quiet_optuna()
    try:
        found = read_found(options.study)
    except (OSError, ValueError):
        raise UsageError(f"{options.study}: not the tune.json of a study.") from None
    grid = grid_of(found)
    print(f"{len(grid.results)} settings of {found.model['name']}, {grid.seconds:.0f} s in all")
    print(table(grid, options.seeds, announce))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog=PROG, description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path, metavar="TUNE_JSON", help="of a study that tried every setting")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="repetitions of each search (default: %(default)s)")
    return run_command(PROG, run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
