"""The blocks of networks: which they are, and that each of their calls is noticed."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from bench.calls.sampling import generate
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.upgrade.blocks import before_each, blocks_of
from tests.upgrade.helpers import UNET_CALLS


def test_blocks_are_the_items_of_outermost_lists(tiny_case, load_tiny):
    blocks = blocks_of(load_tiny(tiny_case(STABLE_DIFFUSION)).pipeline)
    assert "unet.down_blocks.0" in blocks
    assert "unet.mid_block.resnets.0" in blocks
    assert "vae.decoder.up_blocks.0" in blocks
    assert any(name.startswith("text_encoder.") and ".layers." in name for name in blocks)
    assert not any(name.startswith("unet.down_blocks.0.") for name in blocks)


def test_components_that_are_no_networks_have_none():
    assert blocks_of(SimpleNamespace(components={"scheduler": object(), "unet": torch.nn.Linear(1, 1)})) == {}


def test_each_call_of_a_block_is_noticed_until_the_end(tiny_case, load_tiny):
    case = tiny_case(DDPM)
    loaded = load_tiny(case)
    blocks = blocks_of(loaded.pipeline)
    noticed: list[None] = []
    with before_each(blocks, lambda: noticed.append(None)):
        generate(loaded, case)
    assert len(noticed) == UNET_CALLS[DDPM] * len(blocks) > 0
    generate(loaded, case)
    assert len(noticed) == UNET_CALLS[DDPM] * len(blocks)
