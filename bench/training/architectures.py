"""The architectures of the embedded checkpoints, untrained."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

SD_SIZE = 64
DDPM_SIZE = 32
TOKENS = 24
TEXT_WIDTH = 128
END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"


def autoencoder() -> AutoencoderKL:
    """64 x 64 pixels to a latent of 4 x 16 x 16 and back."""
    return AutoencoderKL(
        sample_size=SD_SIZE,
        latent_channels=4,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )


def text_encoder(vocabulary_size: int) -> CLIPTextModel:
    """The start and end tokens are the last two of the vocabulary, as in CLIP's own."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=vocabulary_size - 2,
            eos_token_id=vocabulary_size - 1,
            pad_token_id=vocabulary_size - 1,
        )
    )


def text_unet() -> UNet2DConditionModel:
    """SD 1.x in small: cross-attention at 8 x 8 and in the middle, none at the full latent size."""
    return UNet2DConditionModel(
        sample_size=SD_SIZE // 4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
    )


def image_unet() -> UNet2DModel:
    return UNet2DModel(
        sample_size=DDPM_SIZE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 64, 128, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )


def sd_scheduler() -> PNDMScheduler:
    """Stable Diffusion 1.x's own values."""
    return PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def ddpm_scheduler() -> DDPMScheduler:
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")


@lru_cache
def _byte_characters() -> list[str]:
    """The 256 printable stand-ins for bytes, in the order of GPT-2's and CLIP's vocabularies."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + position) for position in range(len(others)))]


def learn_merges(prompts: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that make each word of the prompts one token (Sennrich et al. 2016).

    The most frequent pair is merged first, and of several the first in order: the trainer of ``tokenizers`` breaks
    such ties by chance, and would give a word another number each time.
    """
    words = Counter(word for prompt in prompts for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", prompt.lower()))
    pieces = {word: (*word[:-1], word[-1] + END_OF_WORD) for word in words}
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = {word: _merge(parts, best) for word, parts in pieces.items()}


def _merge(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    position = 0
    while position < len(parts):
        together = parts[position : position + 2] == pair
        merged.append("".join(pair) if together else parts[position])
        position += 2 if together else 1
    return tuple(merged)


def write_tokenizer(prompts: list[str], folder: Path) -> int:
    """Learns byte-pair merges from the prompts until each word is one token; writes CLIP's own files.

    Only ``vocab.json`` and ``merges.txt`` are written, and the two small configurations: every version of
    transformers builds its CLIPTokenizer from these.

    Returns:
        The size of the vocabulary.
    """
    merges = learn_merges(prompts)
    singles = _byte_characters()
    words = [*singles, *(character + END_OF_WORD for character in singles), *map("".join, merges), START, END]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges), encoding="utf-8"
    )
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                **special,
                "add_prefix_space": False,
                "do_lower_case": True,
                "errors": "replace",
                "model_max_length": TOKENS,
                "tokenizer_class": "CLIPTokenizer",
            },
            indent=2,
        )
        + "\n"
    )
    return len(vocabulary)
