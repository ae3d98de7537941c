"""One training loop for every objective: warm-up and final decay, EMA, checkpoints, previews, a progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from bench.errors import UsageError
from bench.files import append_line, write_atomically

STATE = "state.pt"
LOSS_LOG = "loss.jsonl"


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast to learn.

    The learning rate rises linearly over ``warmup`` steps, stays, and falls linearly over the last ``decay`` (a
    share of ``steps``). It depends only on the step, so a resumed training may be given more steps.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    decay: float = 0.3
    ema: float = 0.999
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step, as a share of ``learning_rate``."""
        left = (self.steps - step) / (self.decay * self.steps)
        return max(0.01, min((step + 1) / self.warmup, left, 1.0))


@dataclass(frozen=True)
class Objective:
    """What is learnt: the modules, the loss of one random batch, and a picture of the progress."""

    modules: torch.nn.Module
    loss: Callable[[torch.nn.Module, int, torch.Generator], torch.Tensor]
    preview: Callable[[torch.nn.Module], Image.Image]


def save_state(path: Path, state: dict) -> None:
    """A kill at any moment leaves the old state or the new one."""
    content = BytesIO()
    torch.save(state, content)
    write_atomically(path, content.getvalue())


def averaged(modules: torch.nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average; a small decay at first, so that the untrained weights are soon forgotten."""

    def update(average: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor | int) -> None:
        torch._foreach_lerp_(average, current, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

    return AveragedModel(modules, multi_avg_fn=update)


def load_averaged(modules: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """The exponential moving average of the weights, from the last state in ``folder``.

    Raises:
        UsageError: nothing was trained there yet.
    """
    path = folder / STATE
    if not path.is_file():
        raise UsageError(f"{path} not found: train `{folder.name}` first (python -m bench.training --help).")
    ema = averaged(modules, 0.0)
    ema.load_state_dict(torch.load(path, weights_only=True)["ema"])
    return ema.module.eval()


def train(
    objective: Objective, plan: TrainingPlan, folder: Path, *, save_every: int = 100, preview_every: int = 500
) -> None:
    """Trains up to ``plan.steps`` steps, from the last state in ``folder`` if there is one.

    The random numbers of a step depend on the seed and the step alone, so a training that was killed and resumed
    sees the same batches as one that was not.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    modules = objective.modules.train()
    ema = averaged(modules, plan.ema)
    optimizer = torch.optim.AdamW(modules.parameters(), lr=plan.learning_rate, weight_decay=0.01)
    start, seconds, smooth = 0, 0.0, None
    if (folder / STATE).is_file():
        state = torch.load(folder / STATE, weights_only=True)
        for name, part in (("modules", modules), ("ema", ema), ("optimizer", optimizer)):
            part.load_state_dict(state[name])
        start, seconds, smooth = state["step"], state["seconds"], state["loss"]
    schedule = LambdaLR(optimizer, plan.rate, last_epoch=start - 1)
    began = time.monotonic()
    bar = tqdm(range(start, plan.steps), initial=start, total=plan.steps, desc=folder.name, unit="step")
    for step in bar:
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = objective.loss(modules, plan.batch, generator)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{folder.name}: the loss of step {step} is {loss.item()}.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        ema.update_parameters(modules)
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        bar.set_postfix(loss=f"{smooth:.4f}")
        done = step + 1
        if done % save_every == 0 or done == plan.steps:
            spent = seconds + time.monotonic() - began
            save_state(
                folder / STATE,
                {
                    "step": done,
                    "seconds": spent,
                    "loss": smooth,
                    "modules": modules.state_dict(),
                    "ema": ema.state_dict(),
                    "optimizer": optimizer.state_dict(),
                },
            )
            entry = {"step": done, "batch": plan.batch, "loss": round(smooth, 5), "seconds": round(spent, 1)}
            append_line(folder / LOSS_LOG, json.dumps(entry))
        if done % preview_every == 0 or done == plan.steps:
            with torch.no_grad():
                objective.preview(ema.module.eval()).save(folder / f"preview-{done:06d}.png")
    print(f"{folder.name}: {plan.steps} steps, smoothed loss {smooth:.4f}; state in {folder / STATE}")
