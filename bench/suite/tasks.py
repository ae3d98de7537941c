"""What a checkpoint's weights can be called for: pictures from a prompt, from a picture, or within a mask."""

from __future__ import annotations

TEXT_TO_IMAGE, IMAGE_TO_IMAGE, INPAINTING = "text-to-image", "image-to-image", "inpainting"

# Each task of Stable Diffusion and the class that calls the same weights for it.
TASKS = {
    TEXT_TO_IMAGE: "StableDiffusionPipeline",
    IMAGE_TO_IMAGE: "StableDiffusionImg2ImgPipeline",
    INPAINTING: "StableDiffusionInpaintPipeline",
}
