"""Prefetch: the hub's cache gets exactly what a run loads, and the run then needs no network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from bench import prefetch
from bench.calls.device import Cpu
from bench.calls.pipelines import load_pipeline
from bench.command import NOTHING_RUN
from bench.suite.file import read_suite
from bench.suite.schedulers import STABLE_DIFFUSION
from bench.suite.selection import model_named
from tests.hub_server import Hub, refusing

EXTRAS = (
    "README.md",
    "v1.ckpt",
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "text_encoder/flax_model.msgpack",
    "text_encoder/pytorch_model.bin",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/model.onnx",
    "vae/diffusion_pytorch_model.non_ema.safetensors",
)
SUITE = f"""
[models.served]
kind = "stable-diffusion"
source = "hub"
id = "{Hub.repo_id}"
variant = "fp16"

[models.emoji-sd]
kind = "stable-diffusion"
source = "embedded"

[[cases]]
model = "served"
scheduler = "ddim"
steps = 2
images = 1
prompts = ["red fox"]
guidance = 7.5
"""


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def needed(hub, tiny_folders, tmp_path, monkeypatch):
    """A repository as they are on the hub; the paths that a run loads."""
    folder = Path(shutil.copytree(tiny_folders[STABLE_DIFFUSION], tmp_path / "served"))
    for path in list(folder.rglob("*.safetensors")):
        path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))
    needed = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for extra in EXTRAS:
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes(b"never read")
    index = folder / "model_index.json"
    checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    index.write_text(json.dumps(json.loads(index.read_text()) | checker))
    monkeypatch.setattr(Hub, "tree", folder)
    return needed


def cached(cache: Path) -> set[str]:
    return {path.as_posix().split("/", 2)[2] for path in (
        path.relative_to(cache / f"models--{Hub.repo_id.replace('/', '--')}") for path in cache.rglob("snapshots/**/*")
        if path.is_file()
    )}  # fmt: skip


def test_exactly_what_a_run_loads_is_downloaded_and_then_loaded_offline(needed, suite, offline, capsys, monkeypatch):
    assert prefetch.main(["--model", "served", "--suite", str(suite)]) == 0
    assert cached(offline) == needed
    said = capsys.readouterr().out
    size = sum(path.stat().st_size for path in offline.rglob("blobs/*"))
    assert f"served: {len(needed)} files, " in said
    assert f"cache: {offline}, {size / 2**20:.1f} MiB for {Hub.repo_id}\n" in said
    assert said.splitlines()[-1].startswith("HF_HUB_OFFLINE=1 now works")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    before = len(Hub.requests)
    load_pipeline(model_named(read_suite(suite), "served"), "float32", (), Cpu(), suite.parent)
    assert len(Hub.requests) == before


def test_an_interrupted_download_continues_with_what_is_missing(needed, suite, offline, capsys):
    last = sorted(needed)[-1]
    Hub.troubles["HEAD", last] = [refusing(500)] * 9
    assert prefetch.main(["--model", "served", "--suite", str(suite)]) == NOTHING_RUN
    error = capsys.readouterr().err
    assert (error.count("\n"), last in error) == (1, True)
    there = cached(offline)
    Hub.troubles.clear()
    Hub.requests.clear()
    assert prefetch.main(["--model", "served", "--suite", str(suite)]) == 0
    fetched = {path.split("/", 5)[5] for method, path, _ in Hub.requests if method == "GET" and "/resolve/" in path}
    assert there
    assert fetched == needed - there


def test_models_that_are_here_need_nothing_and_say_so(suite, offline, capsys):
    assert prefetch.main(["--model", "emoji-sd", "--suite", str(suite)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("emoji-sd: nothing to download, it is embedded: ")
    assert "HF_HUB_OFFLINE" not in said


def test_an_unknown_model_is_one_sentence(suite, offline, capsys):
    assert prefetch.main(["--model", "gremlin", "--suite", str(suite)]) == NOTHING_RUN
    assert "--model gremlin: not in" in capsys.readouterr().err
