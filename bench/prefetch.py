"""``python -m bench.prefetch --model NAME``: fills the hub's cache, so that runs of the model need no network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.calls import hub
from bench.calls.lora import find_lora
from bench.calls.pipelines import checkpoint_files, find_checkpoint, is_cached
from bench.command import CommandParser, run_command
from bench.console import announce
from bench.errors import UsageError
from bench.suite.case import Model
from bench.suite.file import SUITE_FILE, read_suite
from bench.suite.selection import model_named


def run(options: argparse.Namespace) -> int:
    """Downloads what the models lack and says where it is.

    Raises:
        BenchError: a model is not in the suite, or cannot be downloaded.
    """
    suite = read_suite(options.suite)
    models = [model_named(suite, name) for name in dict.fromkeys(options.model)]
    repositories: dict[str, None] = {}
    for model in models:
        repositories |= dict.fromkeys(_prefetch(model, options.suite.parent))
    if repositories:
        size = sum(map(_size_in_cache, repositories))
        names = ", ".join(repositories)
        announce(f"cache: {hub.cache_folder()}, {hub.mebibytes(size)} for {names}")
        announce("HF_HUB_OFFLINE=1 now works for these models: they load without network")
    return 0


def _prefetch(model: Model, suite_folder: Path) -> list[str]:
    """The repositories that a model needs, all in the cache now."""
    repositories = []
    checkpoint = find_checkpoint(model, suite_folder, announce)
    files = checkpoint_files(model, checkpoint.folder)
    size = sum((checkpoint.folder / path).stat().st_size for path in files.all)
    if model.source == "hub":
        if not is_cached(model):
            raise UsageError(f"model '{model.name}': {hub.cache_folder()} does not keep {model.id}; check its disk.")
        repositories.append(str(model.id))
        announce(f"{model.name}: {len(files.all)} files, {hub.mebibytes(size)}, commit {checkpoint.revision}")
    else:
        announce(f"{model.name}: nothing to download, it is {model.source}: {checkpoint.folder}")
    for name, lora in model.loras.items():
        if lora.id:
            announce(f"{model.name}: LoRA weights '{name}': {find_lora(name, lora)}")
            repositories.append(lora.id)
    return repositories


def _size_in_cache(repository: str) -> int:
    """Bytes of all that the cache has of a repository, other revisions too."""
    folder = hub.cache_folder() / f"models--{repository.replace('/', '--')}"
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        prog="python -m bench.prefetch",
        description="Downloads into the hub's cache exactly what a run of these models loads. Run it again to continue "
        "an interrupted download; files that are there are kept.",
    )
    parser.add_argument(
        "--model", action="append", required=True, metavar="NAME", help="a model of the suite file; repeatable"
    )
    parser.add_argument("--suite", type=Path, default=SUITE_FILE, metavar="PATH", help="another suite file")
    return run_command(parser.prog, run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
