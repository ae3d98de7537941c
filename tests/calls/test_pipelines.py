"""Loading: folders, the hub's cache and the hub itself; every refusal is one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file

from bench.calls.device import Cpu
from bench.calls.pipelines import (
    Checkpoint,
    LoadedPipeline,
    PipelineError,
    dtype_argument,
    find_checkpoint,
    load_pipeline,
    weights_hash,
)
from bench.calls.sampling import generate
from bench.suite.case import Model
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from tests.hub_server import REVISION, Hub

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = {STABLE_DIFFUSION: "somebody/tiny-sd", DDPM: "somebody/tiny-ddpm"}
KINDS = pytest.mark.parametrize("kind", [STABLE_DIFFUSION, DDPM])


def local_model(kind: str, folder: Path, **keys: Any) -> Model:
    return Model.model_validate({"name": "tiny", "kind": kind, "source": "local", "path": folder} | keys)


def hub_model(kind: str, **keys: Any) -> Model:
    entry = {"name": "tiny", "kind": kind, "source": "hub", "id": IDS[kind], "revision": "main"}
    return Model.model_validate(entry | keys)


def load(model: Model, dtype: str = "float32") -> LoadedPipeline:
    return load_pipeline(model, dtype, (), Cpu(), Path())


def modules(loaded: LoadedPipeline) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in loaded.pipeline.components.items() if isinstance(part, torch.nn.Module)}


def assert_one_sentence(text: str, *parts: str) -> None:
    assert "\n" not in text
    assert text.endswith(".")
    for part in parts:
        assert part in text


def pickle_weights(folder: Path) -> None:
    """Turns the safetensors of a folder into the pickles that diffusers and transformers used to write."""
    for path in list(folder.rglob("*.safetensors")):
        name = "pytorch_model.bin" if path.name == "model.safetensors" else f"{path.stem}.bin"
        torch.save(load_file(path), path.with_name(name))
        path.unlink()


def add_checker_entry(folder: Path) -> None:
    """Names a safety checker in the index, as Stable Diffusion's repositories do; there are no files for it."""
    index = folder / "model_index.json"
    checker = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
        "requires_safety_checker": True,
    }
    index.write_text(json.dumps(json.loads(index.read_text()) | checker))


def flatten(folder: Path) -> None:
    """Moves every file to the root, where the first DDPM repositories have them."""
    for path in [path for path in folder.glob("*/*") if path.is_file()]:
        path.rename(folder / path.name)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


@pytest.fixture
def copy_of(tmp_path: Path, tiny_folders: dict[str, Path]) -> Callable[..., Path]:
    """``copy_of(kind)`` is a folder that the test may change."""

    def copy(kind: str, name: str = "copy") -> Path:
        return Path(shutil.copytree(tiny_folders[kind], tmp_path / name))

    return copy


@pytest.fixture
def repository(copy_of: Callable[..., Path]) -> Callable[[str], Path]:
    """``repository(kind)`` has the layout of the two real repositories: only pickles; DDPM's all in the root."""

    def make(kind: str) -> Path:
        folder = copy_of(kind, f"repository-{kind}")
        pickle_weights(folder)
        if kind == STABLE_DIFFUSION:
            add_checker_entry(folder)
        else:
            flatten(folder)
        return folder

    return make


def put_into_cache(repository: Path, cache: Path, repo_id: str) -> Path:
    """The hub's own layout: contents under blobs/, links to them under snapshots/<revision>/, names under refs/."""
    root = cache / f"models--{repo_id.replace('/', '--')}"
    snapshot = root / "snapshots" / REVISION
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(REVISION)
    for path in [path for path in repository.rglob("*") if path.is_file()]:
        blob = root / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        link = snapshot / path.relative_to(repository)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_is_loaded_with_the_dtype_everywhere(kind, dtype, tiny_folders, offline):
    loaded = load(local_model(kind, tiny_folders[kind]), dtype)
    parameters = [weight for module in modules(loaded).values() for weight in module.parameters()]
    assert {weight.dtype for weight in parameters} == {getattr(torch, dtype)}
    assert {weight.device.type for weight in parameters} == {"cpu"}
    assert not any(module.training for module in modules(loaded).values())
    assert loaded.revision is None
    assert loaded.load_s > 0


def test_a_local_path_is_relative_to_the_suite_file(tiny_ddpm_folder, offline):
    model = local_model(DDPM, Path(tiny_ddpm_folder.name))
    assert find_checkpoint(model, tiny_ddpm_folder.parent) == Checkpoint(tiny_ddpm_folder, None, pickled=False)


@KINDS
def test_the_checkpoints_own_scheduler_is_kept_for_later(kind, tiny_folders, offline):
    loaded = load(local_model(kind, tiny_folders[kind]))
    written = json.loads((tiny_folders[kind] / "scheduler" / "scheduler_config.json").read_text())
    assert {key: loaded.scheduler_config[key] for key in written if not key.startswith("_")} == {
        key: value for key, value in written.items() if not key.startswith("_")
    }


@KINDS
def test_pickled_weights_are_loaded_from_the_cache_if_allowed(kind, repository, offline, tiny_folders, tiny_case):
    put_into_cache(repository(kind), offline, IDS[kind])
    loaded = load(hub_model(kind, allow_pickle=True))
    assert loaded.revision == REVISION
    case = tiny_case(kind)
    expected = generate(load(local_model(kind, tiny_folders[kind])), case)
    assert [image.tobytes() for image in generate(loaded, case)] == [image.tobytes() for image in expected]


@KINDS
@pytest.mark.parametrize("revision", [None, "main", REVISION])
def test_every_name_of_a_cached_revision_resolves_to_its_hash(kind, revision, repository, offline):
    snapshot = put_into_cache(repository(kind), offline, IDS[kind])
    found = find_checkpoint(hub_model(kind, allow_pickle=True, revision=revision), Path())
    assert found == Checkpoint(snapshot, REVISION, pickled=True)


@KINDS
def test_pickled_weights_in_the_hub_cache_are_refused(kind, repository, offline):
    put_into_cache(repository(kind), offline, IDS[kind])
    with pytest.raises(PipelineError) as refused:
        find_checkpoint(hub_model(kind), Path())
    assert_one_sentence(str(refused.value), "model 'tiny'", "pickled", "allow_pickle = true")


@KINDS
def test_pickled_weights_in_a_folder_are_refused_unless_allowed(kind, copy_of, offline):
    folder = copy_of(kind)
    pickle_weights(folder)
    with pytest.raises(PipelineError) as refused:
        load(local_model(kind, folder))
    assert_one_sentence(str(refused.value), "model 'tiny'", str(folder), "pickled", "allow_pickle = true")
    assert load(local_model(kind, folder, allow_pickle=True)).pipeline.unet.dtype == torch.float32


def test_a_pickle_beside_safetensors_is_neither_refused_nor_read(copy_of, offline):
    folder = copy_of(DDPM)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not a pickle")
    assert not find_checkpoint(local_model(DDPM, folder), Path()).pickled
    load(local_model(DDPM, folder))


def test_one_pickled_part_is_enough_to_refuse(copy_of, offline):
    folder = copy_of(STABLE_DIFFUSION)
    pickle_weights(folder / "vae")
    with pytest.raises(PipelineError, match="pickled"):
        find_checkpoint(local_model(STABLE_DIFFUSION, folder), Path())


def test_safetensors_and_allowed_pickles_may_stand_side_by_side(copy_of, offline):
    folder = copy_of(STABLE_DIFFUSION)
    pickle_weights(folder / "vae")
    load(local_model(STABLE_DIFFUSION, folder, allow_pickle=True))


@KINDS
def test_weights_neither_cached_nor_reachable_are_one_sentence(kind, offline):
    with pytest.raises(PipelineError) as missing:
        find_checkpoint(hub_model(kind, allow_pickle=True), Path())
    assert_one_sentence(str(missing.value), "'tiny'", IDS[kind], "revision main", str(offline), "HF_HUB_OFFLINE")
    assert "python -m bench.prefetch --model tiny" in str(missing.value)
    assert 'source = "local"' in str(missing.value)


@KINDS
def test_a_revision_that_is_not_cached_is_not_replaced(kind, repository, offline):
    put_into_cache(repository(kind), offline, IDS[kind])
    with pytest.raises(PipelineError, match="revision other"):
        find_checkpoint(hub_model(kind, allow_pickle=True, revision="other"), Path())


def test_a_folder_without_index_is_one_sentence(tmp_path, offline):
    with pytest.raises(PipelineError) as missing:
        find_checkpoint(local_model(DDPM, tmp_path / "nowhere"), Path())
    assert_one_sentence(str(missing.value), "model 'tiny'", str(tmp_path / "nowhere"), "model_index.json")


def test_an_embedded_model_that_is_missing_is_one_sentence(offline):
    model = Model.model_validate({"name": "no-such-checkpoint", "kind": DDPM, "source": "embedded"})
    with pytest.raises(PipelineError) as missing:
        find_checkpoint(model, Path())
    assert_one_sentence(str(missing.value), "checkpoints", "no-such-checkpoint", "model_index.json")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        (DDPM, "unet/diffusion_pytorch_model.safetensors"),
        (DDPM, "unet/config.json"),
        (STABLE_DIFFUSION, "vae/diffusion_pytorch_model.safetensors"),
        (STABLE_DIFFUSION, "text_encoder/model.safetensors"),
        (STABLE_DIFFUSION, "tokenizer/vocab.json"),
    ],
)
def test_a_truncated_file_is_one_sentence(kind, file, copy_of, offline):
    folder = copy_of(kind)
    truncate(folder / file)
    with pytest.raises(PipelineError) as damaged:
        load(local_model(kind, folder))
    assert str(damaged.value).startswith(f"model 'tiny': {folder} cannot be loaded (")
    assert "\n" not in str(damaged.value)


@KINDS
def test_a_truncated_pickle_is_one_sentence(kind, copy_of, offline):
    folder = copy_of(kind)
    pickle_weights(folder)
    truncate(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(PipelineError) as damaged:
        load(local_model(kind, folder, allow_pickle=True))
    assert str(damaged.value).startswith(f"model 'tiny': {folder} cannot be loaded (")
    assert "\n" not in str(damaged.value)


def test_a_pickle_with_code_in_it_is_not_run_even_when_allowed(copy_of, offline, tmp_path):
    folder = copy_of(DDPM)
    pickle_weights(folder)
    torch.save(Bomb(tmp_path / "exploded"), folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(PipelineError, match="cannot be loaded"):
        load(local_model(DDPM, folder, allow_pickle=True))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(("kind", "other"), [(STABLE_DIFFUSION, DDPM), (DDPM, STABLE_DIFFUSION)])
def test_a_folder_of_the_other_kind_is_one_sentence(kind, other, tiny_folders, offline):
    with pytest.raises(PipelineError, match="correct 'kind' in the model's entry"):
        load(local_model(kind, tiny_folders[other]))


def test_a_truncated_index_is_one_sentence(copy_of, offline):
    folder = copy_of(DDPM)
    truncate(folder / "model_index.json")
    with pytest.raises(PipelineError, match=r"model_index\.json is damaged"):
        load(local_model(DDPM, folder))


def test_the_safety_checker_is_not_loaded(copy_of, offline):
    folder = copy_of(STABLE_DIFFUSION)
    add_checker_entry(folder)
    pipeline = load(local_model(STABLE_DIFFUSION, folder)).pipeline
    assert pipeline.safety_checker is None
    assert pipeline.feature_extractor is None
    assert not pipeline.config.requires_safety_checker


def test_the_safety_checker_is_loaded_when_the_model_asks_for_it(copy_of, offline):
    folder = copy_of(STABLE_DIFFUSION)
    add_checker_entry(folder)
    with pytest.raises(PipelineError, match="cannot be loaded"):  # its files are missing
        load(local_model(STABLE_DIFFUSION, folder, safety_checker=True))


def test_the_weights_hash_is_that_of_names_and_contents(copy_of):
    one, other = copy_of(DDPM, "one"), copy_of(DDPM, "other")
    model = local_model(DDPM, one)
    before = weights_hash(one, model)
    assert weights_hash(other, model) == before
    assert len(before) == 64
    (other / "README.md").write_text("Words about the weights.")
    assert weights_hash(other, model) == before
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("renamed.safetensors"))
    assert weights_hash(other, model) != before
    shutil.move(weights.with_name("renamed.safetensors"), weights)
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert weights_hash(other, model) != before


def test_the_weights_hash_takes_in_pickles_and_every_part(copy_of):
    folder = copy_of(STABLE_DIFFUSION)
    model = local_model(STABLE_DIFFUSION, folder, allow_pickle=True)
    pickle_weights(folder)
    before = weights_hash(folder, model)
    for part in ("unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin"):
        with (folder / part).open("ab") as file:
            file.write(b"x")
        assert weights_hash(folder, model) != before
        before = weights_hash(folder, model)


def test_a_loaded_pipeline_knows_the_hash_of_its_weights(tiny_ddpm_folder, offline):
    model = local_model(DDPM, tiny_ddpm_folder)
    assert load(model).weights == weights_hash(tiny_ddpm_folder, model)


@pytest.mark.parametrize(
    ("version", "name"),
    [("0.30.3", "torch_dtype"), ("0.39.9", "torch_dtype"), ("0.40.0", "dtype"), ("0.42.1", "dtype"), ("1.0", "dtype")],
)
def test_the_dtype_keyword_follows_the_library(version, name, monkeypatch):
    monkeypatch.setattr(diffusers, "__version__", version)
    assert dtype_argument(torch.bfloat16) == {name: torch.bfloat16}


class Bomb:
    """Unpickles by creating a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


ADVICE = {
    "absent": "no such repository, or it is private; correct 'id' in the model's entry or set HF_TOKEN",
    "private": "no such repository, or it is private; correct 'id' in the model's entry or set HF_TOKEN",
    "gated": "the repository is gated; accept its terms and set HF_TOKEN",
    "other-revision": "no such revision; correct 'revision' in the model's entry",
}


@pytest.mark.parametrize("name", ADVICE)
def test_what_the_hub_refuses_is_reported_with_the_remedy(name, hub):
    with pytest.raises(PipelineError) as refused:
        find_checkpoint(hub_model(DDPM, id=f"somebody/{name}"), Path())
    assert_one_sentence(str(refused.value), "model 'tiny'", f"somebody/{name} at revision main", ADVICE[name])


@pytest.mark.parametrize("name", ["failing", "hangs-up", "closed"])
def test_a_hub_that_does_not_answer_is_named_with_the_cache(name, hub, offline):
    if name == "closed":
        hub.shutdown()
        hub.server_close()
    with pytest.raises(PipelineError) as unreachable:
        find_checkpoint(hub_model(DDPM, id=f"somebody/{name}"), Path())
    answer = f"http://127.0.0.1:{hub.server_port} did not provide it"
    assert_one_sentence(
        str(unreachable.value), "model 'tiny'", f"somebody/{name} at revision main", answer, str(offline)
    )
    assert "python -m bench.prefetch --model tiny" in str(unreachable.value)


@KINDS
def test_a_repository_is_downloaded_once_and_then_cached(kind, repository, hub, offline, monkeypatch):
    monkeypatch.setattr(Hub, "tree", repository(kind))
    model = hub_model(kind, id=Hub.repo_id, allow_pickle=True)
    found = find_checkpoint(model, Path())
    assert (found.revision, found.pickled) == (REVISION, True)
    assert found.folder.is_relative_to(offline)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.shutdown()
    hub.server_close()
    assert find_checkpoint(model, Path()) == found
    assert load(model).revision == REVISION


@KINDS
def test_pickled_weights_are_refused_before_they_are_downloaded(kind, repository, hub, offline, monkeypatch):
    monkeypatch.setattr(Hub, "tree", repository(kind))
    with pytest.raises(PipelineError) as refused:
        find_checkpoint(hub_model(kind, id=Hub.repo_id), Path())
    assert_one_sentence(str(refused.value), "model 'tiny'", Hub.repo_id, "pickled", "allow_pickle = true")
    assert not list(offline.rglob("*.bin"))
