"""The pipeline and the arguments of a task, from those of the model's own pipeline."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw

from bench.suite.tasks import IMAGE_TO_IMAGE, INPAINTING, TASKS, TEXT_TO_IMAGE


def pipeline_for(pipeline: Any, task: str) -> Any:
    """The pipeline of this task with the parts of ``pipeline``, which stays as it is."""
    if task == TEXT_TO_IMAGE:
        return pipeline
    import diffusers

    other = getattr(diffusers, TASKS[task])(
        **pipeline.components, requires_safety_checker=pipeline.config.requires_safety_checker
    )
    other.set_progress_bar_config(disable=True)
    return other


def task_arguments(task: str, arguments: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """The call's arguments and what its task needs too: a picture and a mask of this width and height."""
    count = len(arguments["prompt"])
    if task == IMAGE_TO_IMAGE:
        kept = {key: value for key, value in arguments.items() if key not in ("height", "width")}
        return kept | {"image": [drawn_picture(size)] * count}
    if task == INPAINTING:
        given = {"image": [drawn_picture(size)] * count, "mask_image": [drawn_mask(size)] * count}
        return arguments | given | {"height": size[1], "width": size[0]}
    return arguments


def drawn_picture(size: tuple[int, int]) -> Image.Image:
    """A disc on a ground that runs from blue to white: edges, a plain area and a slope."""
    ground = Image.linear_gradient("L").resize(size)
    picture = Image.merge("RGB", (ground, ground, Image.new("L", size, 255)))
    width, height = size
    ImageDraw.Draw(picture).ellipse((width // 4, height // 4, width * 3 // 4, height * 3 // 4), fill=(250, 200, 40))
    return picture


def drawn_mask(size: tuple[int, int]) -> Image.Image:
    """White in the right half, which is to be repainted."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (size[0] // 2, 0, *size))
    return mask
