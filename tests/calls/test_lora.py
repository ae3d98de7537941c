"""LoRA weights are mixed into the networks, or say why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.calls.lora import LoraError
from bench.calls.optimizations import NotApplied, knob_named
from bench.calls.sampling import generate
from bench.suite.case import Case, Model
from bench.suite.lora import Lora
from bench.suite.schedulers import STABLE_DIFFUSION
from bench.tune.code import python_of

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def lora_folder(tiny_case, load_tiny, tmp_path) -> Path:
    """LoRA weights for the attention of the tiny UNet, large enough to show."""
    pipeline = load_tiny(tiny_case(STABLE_DIFFUSION)).pipeline
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")
    pipeline.unet.add_adapter(config)
    with torch.no_grad():
        for name, weight in pipeline.unet.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    layers = peft.utils.get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(tmp_path / "lora", unet_lora_layers=layers)
    return tmp_path / "lora"


@pytest.fixture
def with_lora(tiny_case):
    """``with_lora(lora)`` is the tiny case with this LoRA, switched on as ``lora-odd``."""

    def make(lora: Lora) -> Case:
        case = tiny_case(STABLE_DIFFUSION)
        model = case.model.model_copy(update={"loras": {"odd": lora}})
        return Case(model=model, settings=case.settings.model_copy(update={"optimizations": ("lora-odd",)}))

    return make


def levels(images) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(int)


def test_a_lora_changes_the_pictures_and_leaves_no_layers_behind(with_lora, lora_folder, tiny_case, load_tiny):
    case, plain = with_lora(Lora(path=lora_folder)), tiny_case(STABLE_DIFFUSION)
    loaded, without = load_tiny(case), load_tiny(plain)
    assert knob_named("lora-odd").count(loaded.pipeline) > 0
    assert knob_named("lora-odd").count(without.pipeline) == 0
    assert not any("lora" in name for name, _ in loaded.pipeline.unet.named_modules())
    assert np.abs(levels(generate(loaded, case)) - levels(generate(without, plain))).max() > 3
    assert loaded.weights != without.weights


def test_the_scale_says_how_strongly(with_lora, lora_folder, tiny_case, load_tiny):
    plain = tiny_case(STABLE_DIFFUSION)
    reference = levels(generate(load_tiny(plain), plain))
    weak, strong = (with_lora(Lora(path=lora_folder, scale=scale)) for scale in (0.1, 1.0))
    near, far = (np.abs(levels(generate(load_tiny(case), case)) - reference).mean() for case in (weak, strong))
    assert 0 < near < far
    assert load_tiny(weak).weights != load_tiny(strong).weights


def test_the_program_of_a_case_mixes_it_in_too(with_lora, lora_folder, load_tiny, tmp_path):
    case = with_lora(Lora(path=lora_folder, scale=0.5))
    names: dict[str, object] = {}
    exec(compile(python_of(case, "cpu", tmp_path), "program.py", "exec"), names)
    assert np.abs(levels(names["images"]) - levels(generate(load_tiny(case), case))).max() <= 1


def test_a_lora_without_effect_is_refused(with_lora, lora_folder, load_tiny):
    (file,) = lora_folder.glob("*.safetensors")
    save_file({name: torch.zeros_like(weight) for name, weight in load_file(file).items()}, file)
    with pytest.raises(NotApplied, match="'lora-odd' had no effect"):
        load_tiny(with_lora(Lora(path=lora_folder)))


def test_weights_that_are_not_there_are_one_sentence(with_lora, load_tiny, tmp_path):
    with pytest.raises(LoraError, match=r"^'lora-odd': .*none does not exist; correct 'path' in the model's entry"):
        load_tiny(with_lora(Lora(path=tmp_path / "none")))


def test_weights_that_do_not_fit_are_one_sentence(with_lora, load_tiny, tmp_path):
    save_file({"unet.nothing.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "odd.safetensors")
    with pytest.raises((LoraError, NotApplied), match="'lora-odd'") as caught:
        load_tiny(with_lora(Lora(path=tmp_path / "odd.safetensors")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lora", "name", "said"),
    [
        (Lora(path=Path("x")), "lora-other", "model 'tiny-sd' has no 'lora-other'; its LoRAs: lora-odd"),
        (Lora(path=Path("x"), schedulers=("lcm",)), "lora-odd", "'lora-odd' was made for lcm, not for pndm"),
    ],
)
def test_a_lora_that_a_case_cannot_have_is_a_mistake_of_the_suite_file(lora, name, said, tiny_case):
    case = tiny_case(STABLE_DIFFUSION)
    model = Model.model_validate(case.model.model_dump() | {"loras": {"odd": lora}})
    settings = case.settings.model_copy(update={"optimizations": (name,)})
    with pytest.raises(ValueError, match=said):
        Case(model=model, settings=settings)


@pytest.mark.parametrize("place", [{}, {"path": "x", "id": "y"}])
def test_a_lora_has_one_place(place):
    with pytest.raises(ValueError, match="a LoRA needs either 'path' or 'id'"):
        Lora(**place)
