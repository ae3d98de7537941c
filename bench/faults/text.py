"""Faults of the tokenizer and the text encoder."""

from __future__ import annotations

from typing import Any

import torch

from bench.faults.fault import TRANSFORMERS, Fault, Patch, issue, pull, wrap
from bench.faults.guidance import encoding

AREA = "text encoder"


def _in_encoder(change: Any) -> Any:
    """``change(original, self, input_ids, **kwargs)`` instead of the text encoder's ``forward``."""

    def apply(patch: Patch) -> None:
        from transformers import CLIPTextModel

        def make(original: Any) -> Any:
            def forward(self: Any, input_ids: Any = None, **kwargs: Any) -> Any:
                return change(original, self, input_ids, **kwargs)

            return forward

        wrap(patch, CLIPTextModel, "forward", make)

    return apply


def _with_padding_mask(original: Any, self: Any, input_ids: Any, **kwargs: Any) -> Any:
    ends = input_ids == self.config.eos_token_id
    mask = (ends.int().cumsum(dim=1) - ends.int() == 0).long()
    return original(self, input_ids, **{**kwargs, "attention_mask": mask})


def _without_last_norm(original: Any, self: Any, input_ids: Any, **kwargs: Any) -> Any:
    norm, self.final_layer_norm = self.final_layer_norm, torch.nn.Identity()
    try:
        return original(self, input_ids, **kwargs)
    finally:
        self.final_layer_norm = norm


def _without_last_layer(original: Any, self: Any, input_ids: Any, **kwargs: Any) -> Any:
    layers = self.encoder.layers
    self.encoder.layers = layers[:-1]
    try:
        return original(self, input_ids, **kwargs)
    finally:
        self.encoder.layers = layers


def _positions(change: Any) -> Any:
    def with_positions(original: Any, self: Any, input_ids: Any, **kwargs: Any) -> Any:
        positions = change(torch.arange(input_ids.shape[-1], device=input_ids.device))
        return original(self, input_ids, **{**kwargs, "position_ids": positions[None]})

    return with_positions


def _no_causal_mask(patch: Patch) -> None:
    from transformers.models.clip.modeling_clip import CLIPEncoder

    def make(original: Any) -> Any:
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            return original(self, *args, **{**kwargs, "attention_mask": None, "is_causal": False})

        return forward

    wrap(patch, CLIPEncoder, "forward", make)


def _other_activation(patch: Patch) -> None:
    from transformers.activations import QuickGELUActivation

    patch.setattr(QuickGELUActivation, "forward", lambda self, x: torch.nn.functional.gelu(x))


def _in_tokenizer(change: Any) -> Any:
    def apply(patch: Patch) -> None:
        from transformers import CLIPTokenizer

        def make(original: Any) -> Any:
            return lambda self, *args, **kwargs: change(original, self, *args, **kwargs)

        wrap(patch, CLIPTokenizer, "__call__", make)

    return apply


def _keeping_capitals(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    from tokenizers import normalizers

    backend = self.backend_tokenizer
    kept, backend.normalizer = backend.normalizer, normalizers.NFC()
    try:
        return original(self, *args, **kwargs)
    finally:
        backend.normalizer = kept


def _not_truncating(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    return original(self, *args, **{**kwargs, "truncation": False})


def _cutting_the_end_off(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    if not kwargs.get("truncation") or not kwargs.get("max_length"):
        return original(self, *args, **kwargs)
    encoded = original(self, *args, **{**kwargs, "truncation": False, "padding": "longest"})
    length = kwargs["max_length"]
    if encoded["input_ids"].shape[-1] <= length:
        return original(self, *args, **kwargs)
    for key in encoded:
        encoded[key] = encoded[key][:, :length]
    return encoded


def _padding_with_zeros(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    encoded = original(self, *args, **kwargs)
    ids = encoded["input_ids"]
    if isinstance(ids, torch.Tensor):
        encoded["input_ids"] = ids.masked_fill(encoded["attention_mask"] == 0, 0)
    return encoded


FAULTS = (
    Fault(
        "padding-masked",
        AREA,
        "A mask hides the padding of the prompt, which Stable Diffusion was trained to see.",
        pull(14364, "sgl-project/sglang"),
        _in_encoder(_with_padding_mask),
    ),
    Fault(
        "causal-mask-lost",
        AREA,
        "Tokens attend to later tokens.",
        pull(30390, TRANSFORMERS),
        _no_causal_mask,
    ),
    Fault(
        "last-norm-skipped",
        AREA,
        "The last layer norm of the text encoder is skipped.",
        issue(14124),
        _in_encoder(_without_last_norm),
    ),
    Fault(
        "last-layer-skipped",
        AREA,
        "The embeddings come from the second-to-last layer, as if clip_skip were 1.",
        issue(14124),
        _in_encoder(_without_last_layer),
    ),
    Fault(
        "activation-gelu",
        AREA,
        "The text encoder uses gelu although its configuration says quick_gelu.",
        issue(771, "mlfoundations/open_clip"),
        _other_activation,
    ),
    Fault(
        "positions-lost",
        AREA,
        "The position of every token is 0.",
        issue(48892, TRANSFORMERS),
        _in_encoder(_positions(torch.zeros_like)),
    ),
    Fault(
        "positions-rounded",
        AREA,
        "Two tokens share a position, as if positions were stored in half precision.",
        issue(6, "arenasys/stable-diffusion-webui-model-toolkit"),
        _in_encoder(_positions(lambda positions: positions - (positions == 2).long())),
    ),
    Fault(
        "prompts-mixed-up",
        AREA,
        "Each image of a batch gets the prompt of the previous one.",
        pull(1135),
        encoding(lambda prompts, negatives: (prompts.roll(1, dims=0), negatives)),
    ),
    Fault(
        "capitals-kept",
        AREA,
        "Prompts are not lower-cased.",
        issue(12648, TRANSFORMERS),
        _in_tokenizer(_keeping_capitals),
    ),
    Fault(
        "long-prompt-not-cut",
        AREA,
        "Prompts that are too long are not truncated.",
        pull(1226),
        _in_tokenizer(_not_truncating),
    ),
    Fault(
        "long-prompt-without-end",
        AREA,
        "Prompts that are too long lose their end token.",
        pull(1226),
        _in_tokenizer(_cutting_the_end_off),
    ),
    Fault(
        "padding-token",
        AREA,
        "Prompts are padded with token 0 instead of the end token.",
        pull(24773, TRANSFORMERS),
        _in_tokenizer(_padding_with_zeros),
    ),
)
