"""Command line: ``python -m bench.training STAGE``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.command import FAILED, CommandParser, run_command

PROG = "python -m bench.training"
STAGES = {
    "vae": "train the autoencoder of emoji-sd",
    "decoder": "continue with the autoencoder's decoder alone (after vae; during or after sd)",
    "sd": "train the UNet and the text encoder of emoji-sd (after vae)",
    "ddpm": "train the UNet of emoji-ddpm",
    "ddpm-finish": "continue emoji-ddpm with equal weights for all timesteps (after ddpm)",
    "export": "write what was trained to bench/checkpoints/",
    "card": "measure the exported checkpoints and write their model cards",
}


def parser() -> argparse.ArgumentParser:
    top = CommandParser(
        prog=PROG,
        description="Trains the embedded checkpoints. A stage that was stopped continues from its last checkpoint.",
    )
    stages = top.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, does in STAGES.items():
        stage = stages.add_parser(name, help=does, description=does.capitalize() + ".")
        stage.add_argument("--font", type=Path, help="Noto Color Emoji, if it is not where Debian puts it")
        stage.add_argument("--threads", type=int, help="CPU threads (default: all)")
        stage.add_argument(
            "--work",
            type=Path,
            default=Path("results/training"),
            help="states and previews (default: results/training)",
        )
        if name == "card":
            stage.add_argument("checkpoints", nargs="*", metavar="NAME", help="emoji-sd or emoji-ddpm (default: both)")
        if name in ("export", "card"):
            continue
        stage.add_argument("--steps", type=int, help="total optimizer steps (default: as the checkpoint in bench/)")
        stage.add_argument("--batch", type=int, help="pictures per step")
        stage.add_argument("--seed", type=int, default=0, help="seed of weights, batches and noise (default: 0)")
        stage.add_argument("--restart", action="store_true", help="discard the last checkpoint and start again")
    return top


def run(options: argparse.Namespace) -> int:
    """Runs one stage; returns 1 if it diverged."""
    # Slow imports are here, so that Ctrl-C during them ends with one line too.
    import torch

    from bench.training import stages

    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        stages.run(options)
    except FloatingPointError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command continues from the last checkpoint") from None
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(PROG, run, parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
