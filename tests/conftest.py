"""Tiny untrained pipelines on disk, in diffusers' layout, and cases for them: a call takes a fraction of a second."""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDPMPipeline,
    DDPMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bench.calls.device import Cpu
from bench.calls.pipelines import LoadedPipeline, load_pipeline
from bench.suite.case import Case, Model, Settings
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.training.architectures import TOKENS, write_tokenizer
from tests.forked_processes import forked_processes
from tests.hub_server import hub, offline  # noqa: F401
from tests.upgrade.altered import altered_environment

PROMPTS = ("red fox", "blue whale", "green castle", "yellow rocket")
TEXT_WIDTH = 32

MakeCase = Callable[..., Case]
Load = Callable[..., LoadedPipeline]


def _tiny_text_encoder(vocabulary_size: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size,
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=vocabulary_size - 2,
            eos_token_id=vocabulary_size - 1,
            pad_token_id=vocabulary_size - 1,
        )
    )


def _tiny_text_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(32, 64),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
    )


def _tiny_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=16,
        latent_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )


def _tiny_image_unet() -> UNet2DModel:
    return UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads; on a busy machine waiting for threads is a hundred times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 1.x for pictures of 16 by 16 pixels, with random weights."""
    folder = tmp_path_factory.mktemp("tiny") / "sd"
    words = tmp_path_factory.mktemp("words")
    vocabulary_size = write_tokenizer(list(PROMPTS), words)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = StableDiffusionPipeline(
            vae=_tiny_autoencoder(),
            text_encoder=_tiny_text_encoder(vocabulary_size),
            tokenizer=CLIPTokenizer.from_pretrained(words),
            unet=_tiny_text_unet(),
            scheduler=PNDMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                skip_prk_steps=True,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder, safe_serialization=True)
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(words, folder / "tokenizer")
    return folder


@pytest.fixture(scope="session")
def tiny_ddpm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unconditional pipeline for pictures of 16 by 16 pixels, with random weights."""
    folder = tmp_path_factory.mktemp("tiny") / "ddpm"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = DDPMPipeline(_tiny_image_unet(), DDPMScheduler(beta_schedule="squaredcos_cap_v2"))
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def tiny_folders(tiny_sd_folder: Path, tiny_ddpm_folder: Path) -> dict[str, Path]:
    """The folder of each pipeline kind."""
    return {STABLE_DIFFUSION: tiny_sd_folder, DDPM: tiny_ddpm_folder}


@pytest.fixture(scope="session")
def quick_collections(tiny_folders: dict[str, Path]) -> Iterator[None]:
    """Hides earlier imports from the garbage collector: a run collects after each pipeline, 0.4 s each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def plots_stay() -> None:
    """Imports the plotting library now: ``pytester`` forgets what a run imports, and it can be imported only once."""
    import altair  # noqa: F401
    import vl_convert  # noqa: F401


@pytest.fixture(scope="session")
def tiny_case(tiny_folders: dict[str, Path]) -> MakeCase:
    """``tiny_case(kind, **settings)`` is a case of the tiny pipeline of that kind: 4 steps, 2 images, float32."""

    def make(kind: str, **settings: Any) -> Case:
        chosen: dict[str, Any] = {"scheduler": "ddpm", "steps": 4, "images": 2}
        if kind == STABLE_DIFFUSION:
            count = settings.get("images", 2)
            chosen |= {"scheduler": "pndm", "guidance": 5.0, "prompts": PROMPTS[:count]}
        name = "tiny-ddpm" if kind == DDPM else "tiny-sd"
        model = Model.model_validate({"name": name, "kind": kind, "source": "local", "path": tiny_folders[kind]})
        return Case(model=model, settings=Settings(**(chosen | settings)))

    return make


@pytest.fixture(scope="session")
def load_tiny() -> Load:
    """``load_tiny(case)`` loads the case's pipeline again, so that a test may break it."""

    def load(case: Case) -> LoadedPipeline:
        return load_pipeline(case.model, case.settings.dtype, case.settings.optimizations, Cpu(), Path())

    return load


@pytest.fixture(scope="session")
def alter_golden() -> Callable[[Path], None]:
    """``alter_golden(path)`` replaces the accepted picture: the corner of 8 by 8 pixels is 100 levels off."""

    def alter(path: Path) -> None:
        with Image.open(path) as opened:
            levels = np.asarray(opened).copy()
        levels[:8, :8] += np.uint8(100)
        picture = Image.fromarray(levels)
        picture.save(path)
        beside = path.with_suffix(".json")
        pixels = hashlib.sha256(f"{picture.mode} {picture.size} ".encode() + picture.tobytes()).hexdigest()
        beside.write_text(json.dumps(json.loads(beside.read_text()) | {"pixels": pixels}))

    return alter


@pytest.fixture(scope="session", autouse=True)
def quick_processes() -> Iterator[None]:
    """Processes with the libraries of this environment do not import them again; see ``spawned_processes``."""
    with forked_processes():
        yield


@pytest.fixture
def spawned_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are started as the suite starts them."""
    monkeypatch.setattr("bench.upgrade.workers.subprocess", subprocess)
    monkeypatch.setattr("bench.calls.processes.multiprocessing", multiprocessing)


@pytest.fixture
def altered_python(tmp_path: Path) -> Callable[[str], Path]:
    """``altered_python(code)`` is the interpreter of an environment whose libraries the code has altered."""
    return lambda code: altered_environment(tmp_path / f"environment-{len(list(tmp_path.iterdir()))}", code)
