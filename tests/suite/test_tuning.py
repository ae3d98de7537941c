"""What may be tuned, from [tune.<model>] to the settings that can work."""

from __future__ import annotations

import pytest

from bench.suite.case import Case
from bench.suite.file import SuiteError, read_suite
from bench.suite.tuning import Reference, calls_of, case_of, combinations

SUITE = """
[models.sd]
kind = "stable-diffusion"
source = "embedded"

[models.sd.defaults]
images = 4
prompts = ["a fox", "a cat", "a dog", "a cow"]
guidance = 5

[models.ddpm]
kind = "ddpm"
source = "embedded"

[[cases]]
model = "sd"
scheduler = "pndm"
steps = 20
"""


@pytest.fixture
def read(tmp_path):
    """``read(table)`` is the suite with this text at its end."""

    def read(table: str = ""):
        file = tmp_path / "suite.toml"
        file.write_text(SUITE + table)
        return read_suite(file)

    return read


def cases(suite, name):
    model = next(model for model in suite.models if model.name == name)
    return [made for made in combinations(model, suite.tunings[name]) if isinstance(made, Case)]


def test_a_model_without_a_table_has_the_usual_settings_of_its_kind(read):
    suite = read()
    assert {"pndm", "ddim", "euler"} <= set(suite.tunings["sd"].scheduler)
    assert suite.tunings["sd"].prompts == ("a fox", "a cat", "a dog", "a cow")
    assert suite.tunings["sd"].guidance == (5,)
    assert suite.tunings["ddpm"].prompts == ()
    assert cases(suite, "sd")
    assert cases(suite, "ddpm")


def test_lists_ranges_and_single_values_are_combined(read):
    suite = read(
        """
        [tune.sd]
        scheduler = ["ddim", "euler"]
        steps = { from = 4, to = 8, by = 2 }
        dtype = "float32"
        images = [1, 4]
        optimizations = [[], ["channels-last", "fused-qkv"]]
        """
    )
    made = cases(suite, "sd")
    assert len(made) == 2 * 3 * 2 * 2
    assert {case.settings.steps for case in made} == {4, 6, 8}
    assert {case.settings.optimizations for case in made} == {(), ("channels-last", "fused-qkv")}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("[tune.no]\n", "[tune.no]: unknown model; known: sd, ddpm"),
        ("[tune.sd]\nspeed = 3\n", "speed: unknown key; allowed: scheduler, steps"),
        ("[tune.sd]\nscheduler = []\n", "scheduler: "),
        ('[tune.sd]\nscheduler = "best"\n', "'best' is not one of pndm"),
        ('[tune.sd]\noptimizations = [["warp"]]\n', "optimizations.0.0"),
    ],
)
def test_a_mistake_is_one_sentence(read, table, sentence):
    with pytest.raises(SuiteError) as caught:
        read(table)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_work_has_a_reason(read):
    suite = read('[tune.sd]\nscheduler = ["ddim"]\nsteps = 4\nimages = [3]\n')
    (model, _), tuning = suite.models, suite.tunings["sd"]
    assert set(combinations(model, tuning)) == {"4 pictures cannot be drawn 3 at a time"}


@pytest.mark.parametrize("images", [1, 2, 4])
def test_a_picture_has_its_prompt_and_seed_however_many_a_call_draws(read, images):
    suite = read(f"[tune.sd]\nimages = [{images}]\nseeds = [0, 40]\n")
    first = cases(suite, "sd")[0]
    drawn = [
        (prompt, call.settings.seed + number)
        for call in calls_of(first, suite.tunings["sd"])
        for number, prompt in enumerate(call.settings.prompts)
    ]
    prompts = ("a fox", "a cat", "a dog", "a cow")
    assert drawn == [(prompt, seed + number) for seed in (0, 40) for number, prompt in enumerate(prompts)]


def test_the_reference_is_in_float32_without_speed_settings(read):
    suite = read('[tune.sd]\ndtype = ["bfloat16"]\noptimizations = [["channels-last"]]\n')
    case = case_of(suite.models[0], suite.tunings["sd"], Reference(scheduler="heun", steps=30))
    assert case.id == "sd/heun-s30-g5-fp32"
