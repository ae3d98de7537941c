"""The training data: emoji drawn from an installed font on plain backgrounds, with their CLDR names as prompts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from bench.errors import UsageError

FONT_CANDIDATES = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf"),
    Path.home() / ".local/share/fonts/NotoColorEmoji.ttf",
)
# The font stores bitmaps of this one size; FreeType refuses any other.
BITMAP_SIZE = 109
WHITE = "white"
BACKGROUNDS = {
    WHITE: (255, 255, 255),
    "red": (214, 62, 62),
    "orange": (240, 146, 52),
    "yellow": (246, 218, 84),
    "green": (86, 172, 92),
    "blue": (70, 130, 220),
    "purple": (146, 92, 196),
    "pink": (246, 164, 204),
    "brown": (142, 98, 70),
    "gray": (148, 150, 156),
    "black": (36, 36, 42),
}
HELD_OUT_SHARE = 0.1
SPLIT_SEED = 20261121


@dataclass(frozen=True, order=True)
class Pair:
    """One emoji on one background: a picture and its prompt."""

    name: str
    background: str = WHITE

    @property
    def prompt(self) -> str:
        if self.background == WHITE:
            return self.name
        article = "an" if self.background[0] in "aeiou" else "a"
        return f"{self.name} on {article} {self.background} background"


def read_emoji() -> dict[str, str]:
    """The chosen emoji as ``{CLDR short name: character}``, in the order of ``emoji.tsv``."""
    lines = Path(__file__).with_name("emoji.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return {name: character for character, name in (line.split("\t") for line in lines)}


def all_pairs() -> list[Pair]:
    return [Pair(name, background) for name in read_emoji() for background in BACKGROUNDS]


def split_pairs() -> tuple[list[Pair], list[Pair]]:
    """All pairs as (trained, held out).

    A tenth of all pairs is held out, drawn among the coloured backgrounds, so that every name and every colour is
    trained but never in these combinations.
    """
    pairs = all_pairs()
    coloured = [pair for pair in pairs if pair.background != WHITE]
    held_out = set(random.Random(SPLIT_SEED).sample(coloured, round(HELD_OUT_SHARE * len(pairs))))
    return [pair for pair in pairs if pair not in held_out], sorted(held_out)


def find_font(path: Path | None = None) -> Path:
    """The Noto Color Emoji font file.

    Raises:
        UsageError: no such font; says where it was looked for and how to get it.
    """
    for candidate in (path,) if path else FONT_CANDIDATES:
        if candidate.is_file():
            return candidate
    looked = path or ", ".join(map(str, FONT_CANDIDATES))
    raise UsageError(
        f"Noto Color Emoji not found at {looked}: install it (Debian: fonts-noto-color-emoji) or pass --font PATH."
    )


def draw_sprite(character: str, font: ImageFont.FreeTypeFont, size: int) -> Image.Image:
    """One emoji as an RGBA picture of ``size`` by ``size`` pixels, centred, with a margin of a sixteenth."""
    canvas = Image.new("RGBA", (2 * BITMAP_SIZE, 2 * BITMAP_SIZE))
    ImageDraw.Draw(canvas).text((BITMAP_SIZE // 3, BITMAP_SIZE // 3), character, font=font, embedded_color=True)
    glyph = canvas.crop(canvas.getbbox())
    room = size - 2 * (size // 16)
    scale = room / max(glyph.size)
    width, height = (max(1, round(side * scale)) for side in glyph.size)
    sprite = Image.new("RGBA", (size, size))
    sprite.paste(glyph.resize((width, height), Image.Resampling.LANCZOS), ((size - width) // 2, (size - height) // 2))
    return sprite


class Pictures:
    """Draws pairs as tensors in [-1, 1]; the sprites are rendered once."""

    def __init__(self, size: int, font: Path | None = None) -> None:
        self.size = size
        face = ImageFont.truetype(str(find_font(font)), BITMAP_SIZE)
        names = read_emoji()
        sprites = np.stack([np.asarray(draw_sprite(character, face, size)) for character in names.values()])
        rgba = torch.from_numpy(sprites).permute(0, 3, 1, 2).float() / 255
        self._row = {name: row for row, name in enumerate(names)}
        self._colour, self._alpha = rgba[:, :3], rgba[:, 3:]

    def draw(self, pairs: list[Pair]) -> torch.Tensor:
        """Pictures of the pairs, shape (len(pairs), 3, size, size), float32 in [-1, 1]."""
        rows = [self._row[pair.name] for pair in pairs]
        background = torch.tensor([BACKGROUNDS[pair.background] for pair in pairs]).float()[:, :, None, None] / 255
        alpha = self._alpha[rows]
        return (self._colour[rows] * alpha + background * (1 - alpha)) * 2 - 1
