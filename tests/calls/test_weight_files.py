"""Which files of a checkpoint a pipeline loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

from bench.calls.device import Cpu
from bench.calls.pipelines import PipelineError, checkpoint_files, find_checkpoint, load_pipeline, weights_hash
from bench.calls.weight_files import PipelineFiles, files_in, missing_files, pipeline_files
from bench.suite.case import Model
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION

SD = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "image_encoder": [None, None],
}
CONFIGS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
)
SAFE = ("text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors")
TWINS = (
    "README.md",
    "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors",
    "optimizer.bin",
    "checkpoint-500/optimizer.bin",
    "checkpoint-500/unet/diffusion_pytorch_model.safetensors",
    "feature_extractor/preprocessor_config.json",
    "image_encoder/model.safetensors",
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "text_encoder/flax_model.msgpack",
    "text_encoder/model.onnx",
    "text_encoder/pytorch_model.bin",
    "unet/diffusion_flax_model.msgpack",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/optimizer.bin",
    "unet/diffusion_pytorch_model.bin.index.json",
)


def files(*paths: str, **keys: Any) -> PipelineFiles:
    return pipeline_files(SD, (*CONFIGS, *paths), without=("safety_checker",), **keys)


def test_twins_of_other_libraries_and_unused_parts_are_left_out():
    found = files(*SAFE, *TWINS)
    assert (found.weights, found.others, found.refused) == (SAFE, CONFIGS, ())


def test_the_safety_checker_counts_if_it_is_loaded():
    found = pipeline_files(SD, (*CONFIGS, *SAFE, *TWINS))
    assert set(found.all) - {*CONFIGS, *SAFE} == {"safety_checker/config.json", "safety_checker/model.safetensors"}


def test_each_part_has_its_variant_if_there_is_one():
    variant = "unet/diffusion_pytorch_model.fp16.safetensors"
    found = files(*SAFE, variant, variant="fp16")
    assert (found.weights, found.variant) == ((SAFE[0], variant), "fp16")
    assert files(*SAFE, variant).weights == SAFE


def test_pickles_are_taken_only_if_allowed_and_needed():
    pickled = ("text_encoder/pytorch_model.bin", "unet/diffusion_pytorch_model.bin")
    assert (files(SAFE[0], *pickled).weights, files(SAFE[0], *pickled).refused) == ((SAFE[0],), (pickled[1],))
    found = files(SAFE[0], *pickled, allow_pickle=True)
    assert (found.weights, found.pickled) == ((SAFE[0], pickled[1]), True)
    assert not files(*SAFE, *pickled, allow_pickle=True).pickled


SHARDS = tuple(f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2))


@pytest.mark.parametrize(
    ("shards", "index", "variant"),
    [
        (SHARDS, "diffusion_pytorch_model.safetensors.index.json", None),
        (
            tuple(name.replace("model-", "model.fp16-") for name in SHARDS),
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            "fp16",
        ),
        (
            tuple(name.replace(".safe", ".fp16.safe") for name in SHARDS),
            "diffusion_pytorch_model.safetensors.fp16.index.json",
            "fp16",
        ),
    ],
)
def test_shards_and_their_index_are_taken_together(shards, index, variant):
    paths = [f"unet/{name}" for name in (*shards, index)]
    found = files(SAFE[0], *paths, variant=variant)
    assert found.weights == (SAFE[0], *paths[:2])
    assert paths[2] in found.others
    assert found.variant == variant


def test_beside_shards_diffusers_and_transformers_differ():
    """diffusers reads the shards, transformers the single file."""
    index = "unet/diffusion_pytorch_model.safetensors.index.json"
    of_unet = [f"unet/{name}" for name in SHARDS]
    of_text = [path.replace("unet/diffusion_pytorch_", "text_encoder/") for path in (*of_unet, index)]
    found = files(*SAFE, *of_unet, index, *of_text)
    assert found.weights == (SAFE[0], *of_unet)
    assert not {*of_text} & {*found.all}


def test_a_repository_without_folders_is_read_from_its_root():
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPM"]}
    paths = ("model_index.json", "config.json", "scheduler_config.json", "diffusion_pytorch_model.bin", "README.md")
    found = pipeline_files(index, paths, allow_pickle=True)
    assert set(found.all) == set(paths) - {"README.md"}


def test_what_a_checkpoint_lacks_is_named(tmp_path):
    index = "unet/diffusion_pytorch_model.safetensors.index.json"
    (tmp_path / "unet").mkdir()
    (tmp_path / index).write_text(json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}))
    kept = [path for path in CONFIGS if not path.startswith("tokenizer")]
    found = pipeline_files(SD, (*kept, index, f"unet/{SHARDS[0]}"), without=("safety_checker",))
    missing = missing_files(tmp_path, SD, found, ("safety_checker",))
    assert missing == ["tokenizer/", "the weights of text_encoder", f"unet/{SHARDS[1]}"]
    assert missing_files(tmp_path, SD, files(*SAFE), ("safety_checker",)) == []


# On disk


def model_in(folder: Path, kind: str = STABLE_DIFFUSION, **keys: Any) -> Model:
    return Model.model_validate({"name": "tiny", "kind": kind, "source": "local", "path": folder} | keys)


@pytest.fixture
def folder(tiny_folders, tmp_path):
    return Path(shutil.copytree(tiny_folders[STABLE_DIFFUSION], tmp_path / "sd"))


def to_variant(folder: Path, variant: str = "fp16") -> None:
    for path in list(folder.rglob("*.safetensors")):
        path.rename(path.with_name(f"{path.stem}.{variant}.safetensors"))


def test_files_of_training_are_no_weights(folder, offline):
    model = model_in(folder)
    before = weights_hash(folder, model)
    for place in ("", "checkpoint-500/", "unet/"):
        path = folder / f"{place}optimizer.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"a pickle of the optimizer")
    assert weights_hash(folder, model) == before
    assert not find_checkpoint(model, Path()).pickled
    assert load_pipeline(model, "float32", (), Cpu(), Path()).weights == before


def test_a_safety_checker_that_is_not_loaded_leaves_the_hash(folder):
    model = model_in(folder)
    before = weights_hash(folder, model)
    index = folder / "model_index.json"
    named = json.loads(index.read_text()) | {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    index.write_text(json.dumps(named))
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"weights")
    assert weights_hash(folder, model) == before
    assert weights_hash(folder, model.model_copy(update={"safety_checker": True})) != before


def test_a_model_of_one_variant_only_is_loaded(folder, offline):
    expected = load_pipeline(model_in(folder), "float32", (), Cpu(), Path()).pipeline.unet.state_dict()
    to_variant(folder)
    model = model_in(folder, variant="fp16")
    assert find_checkpoint(model, Path()).variant == "fp16"
    loaded = load_pipeline(model, "float32", (), Cpu(), Path()).pipeline.unet.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in expected.items())
    with pytest.raises(PipelineError, match=r"other variants of its weights only \(.*fp16.*set 'variant'.*\.$"):
        find_checkpoint(model_in(folder), Path())


def test_a_variant_that_is_not_there_is_one_sentence(folder):
    with pytest.raises(PipelineError, match=r"no weights of the variant 'bf16'.*correct or remove 'variant'.*\.$"):
        find_checkpoint(model_in(folder, variant="bf16"), Path())


def test_shards_are_loaded_and_hashed(tiny_folders, tmp_path, offline):
    folder = Path(shutil.copytree(tiny_folders[DDPM], tmp_path / "ddpm"))
    unet = UNet2DModel.from_pretrained(folder / "unet")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="100KB")
    model = model_in(folder, DDPM)
    shards = checkpoint_files(model, folder).weights
    assert len(shards) > 1
    assert {path for path in files_in(folder) if path.endswith(".safetensors")} == {*shards}
    loaded = load_pipeline(model, "float32", (), Cpu(), Path())
    assert all(torch.equal(loaded.pipeline.unet.state_dict()[name], one) for name, one in unet.state_dict().items())
    last = folder / shards[-1]
    last.write_bytes(last.read_bytes()[:-1] + b"?")
    assert weights_hash(folder, model) != loaded.weights
