"""Pictures into one grid and back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import torch


def show_images(x: torch.Tensor) -> Image.Image:
    """One picture of a batch, up to eight images a row with a thin frame.

    Args:
        x: images in [-1, 1], shape (batch, channels, height, width); values outside are clipped.
    """
    import torchvision  # here, because comparing and recording pictures needs no torch
    from torchvision.transforms.functional import to_pil_image

    grid = torchvision.utils.make_grid(x.detach().float().cpu() * 0.5 + 0.5)
    return to_pil_image(grid.clamp(0, 1))


def make_grid(images: Sequence[Image.Image], size: int | tuple[int, int] = 64) -> Image.Image:
    """The images side by side, each resized to ``size`` (an edge, or width and height, in pixels)."""
    width, height = (size, size) if isinstance(size, int) else size
    grid = Image.new("RGB", (width * len(images), height))
    for position, image in enumerate(images):
        tile = image if image.size == (width, height) else image.resize((width, height))
        grid.paste(tile, (position * width, 0))
    return grid


def split_grid(grid: Image.Image, count: int) -> list[Image.Image]:
    """The ``count`` tiles of a grid that ``make_grid`` made."""
    width = grid.width // count
    return [grid.crop((position * width, 0, (position + 1) * width, grid.height)) for position in range(count)]


def pixels_hash(grid: Image.Image) -> str:
    """SHA-256 of mode, size and values, which ties a picture's file to the text that describes it."""
    return hashlib.sha256(f"{grid.mode} {grid.size} ".encode() + grid.tobytes()).hexdigest()
