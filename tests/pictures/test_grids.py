"""Pictures into one grid and back."""

import numpy as np
import pytest
import torch
from PIL import Image

from bench.pictures.grids import make_grid, show_images, split_grid

WIDTH, HEIGHT = 12, 8


def batch(*values: float, channels: int = 3) -> torch.Tensor:
    """One flat image per value."""
    return torch.stack([torch.full((channels, HEIGHT, WIDTH), value) for value in values])


def noise(number: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))


def first_pixel(grid: Image.Image, position: int = 0) -> int:
    """A level inside the first row's image number ``position`` of a framed grid."""
    return int(np.asarray(grid)[2 + 1, 2 + position * (WIDTH + 2) + 1, 0])


@pytest.mark.parametrize(
    ("value", "level"), [(-1.0, 0), (-0.5, 63), (0.0, 127), (0.5, 191), (1.0, 255), (-7.0, 0), (3.0, 255)]
)
def test_show_images_clips_values_outside_minus_one_to_one(value, level):
    assert first_pixel(show_images(batch(value, 0.0))) == level


def test_show_images_does_not_stretch_contrast():
    grid = show_images(batch(-0.1, 0.1))
    assert (first_pixel(grid, 0), first_pixel(grid, 1)) == (114, 140)


@pytest.mark.parametrize(("count", "columns", "rows"), [(2, 2, 1), (8, 8, 1), (9, 8, 2), (17, 8, 3)])
def test_show_images_puts_eight_images_in_a_row_with_a_frame(count, columns, rows):
    grid = show_images(batch(*[0.0] * count))
    assert grid.mode == "RGB"
    assert grid.size == (columns * (WIDTH + 2) + 2, rows * (HEIGHT + 2) + 2)


def test_show_images_keeps_the_order_of_the_images():
    values = [-1.0, -0.5, 0.0, 0.5, 1.0]
    grid = show_images(batch(*values))
    levels = [first_pixel(grid, position) for position in range(len(values))]
    assert levels == [0, 63, 127, 191, 255]


def test_show_images_keeps_the_colours():
    image = torch.stack([torch.full((HEIGHT, WIDTH), value) for value in (1.0, 0.0, -1.0)])
    assert np.asarray(show_images(torch.stack([image, image])))[3, 3].tolist() == [255, 127, 0]


def test_show_images_takes_half_precision_and_one_channel():
    grid = show_images(batch(0.0, 1.0, channels=1).to(torch.bfloat16).requires_grad_())
    assert (first_pixel(grid, 0), first_pixel(grid, 1)) == (127, 255)


def test_show_images_leaves_its_argument_as_it_is():
    images = batch(-3.0, 3.0)
    show_images(images)
    assert torch.equal(images, batch(-3.0, 3.0))


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_grid_splits_into_the_images_it_was_made_of(count):
    images = [noise(number) for number in range(count)]
    grid = make_grid(images, (WIDTH, HEIGHT))
    assert grid.size == (count * WIDTH, HEIGHT)
    tiles = split_grid(grid, count)
    assert [tile.size for tile in tiles] == [(WIDTH, HEIGHT)] * count
    assert all(np.array_equal(tile, image) for tile, image in zip(tiles, images, strict=True))


def test_make_grid_resizes_to_64_pixels_by_default():
    images = [noise(0), noise(1, 64, 64)]
    grid = make_grid(images)
    assert grid.size == (128, 64)
    assert np.array_equal(split_grid(grid, 2)[0], images[0].resize((64, 64)))
    assert np.array_equal(split_grid(grid, 2)[1], images[1])
    assert make_grid(images, 10).size == (20, 10)


def test_make_grid_leaves_its_images_as_they_are():
    image = noise(0)
    make_grid([image, image], 5)
    assert np.array_equal(image, noise(0))
