"""A setting as a program: run without the suite, it draws the same pictures."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest

from bench.calls.sampling import generate
from bench.suite.file import read_suite
from bench.suite.optimizations import OPTIMIZATIONS
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.tune.code import CONTEXTS, STATEMENTS, case_table_text, python_of, suite_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (DDPM, {}),
        (STABLE_DIFFUSION, {"seed": 3, "scheduler": "dpmpp-2m-karras", "call": {"guidance_rescale": 0.7}}),
        (
            STABLE_DIFFUSION,
            {"optimizations": ("channels-last", "guidance-cutoff"), "scheduler": "ddim", "steps": 6, "size": 32},
        ),
        (
            STABLE_DIFFUSION,
            {
                "optimizations": ("prompt-embeddings", "sdpa-math"),
                "options": {"timestep_spacing": "trailing"},
                "scheduler": "ddim",
            },
        ),
    ],
)
def test_a_program_draws_the_pictures_of_its_case(kind, settings, tiny_case, load_tiny, tmp_path):
    case = tiny_case(kind, **settings)
    names: dict[str, Any] = {}
    exec(compile(python_of(case, "cpu", tmp_path), "program.py", "exec"), names)
    expected, made = (
        np.stack([np.asarray(image) for image in images])
        for images in (generate(load_tiny(case), case), names["images"])
    )
    assert made.shape == expected.shape
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_every_speed_setting_is_in_a_program():
    in_calls = {"guidance-cutoff", "prompt-embeddings"}
    assert set(STATEMENTS) | set(CONTEXTS) | in_calls == set(OPTIMIZATIONS)


@pytest.mark.parametrize("name", OPTIMIZATIONS)
def test_a_program_with_any_speed_setting_is_python(name, tiny_case, tmp_path):
    kind = STABLE_DIFFUSION
    compile(python_of(tiny_case(kind, optimizations=(name,)), "cuda:0", tmp_path), "program.py", "exec")


def test_a_variant_is_in_the_program_and_in_the_suite(tiny_case, tmp_path):
    case = tiny_case(DDPM)
    model = case.model.model_copy(update={"variant": "fp16"})
    assert 'variant="fp16"' in python_of(case.model_copy(update={"model": model}), "cpu", tmp_path)
    assert "variant" not in python_of(case, "cpu", tmp_path)
    (tmp_path / "suite.toml").write_text(suite_of(model, [case], tmp_path))
    assert [one.variant for one in read_suite(tmp_path / "suite.toml").models] == ["fp16"]


def test_a_case_as_a_table_is_read_as_the_same_case(tiny_case, tmp_path):
    cases = [
        tiny_case(STABLE_DIFFUSION, scheduler="ddim", steps=7, options={"timestep_spacing": "trailing"}),
        tiny_case(STABLE_DIFFUSION, optimizations=("channels-last",), size=32),
    ]
    file = tmp_path / "suite.toml"
    file.write_text(suite_of(cases[0].model, cases, tmp_path))
    assert {case.id for case in read_suite(file).cases} == {case.id for case in cases}
    assert [case.settings.prompts for case in read_suite(file).cases] == [case.settings.prompts for case in cases]
    (table,) = tomllib.loads(case_table_text(cases[0]))["cases"]
    assert table["scheduler"] == "ddim"
    assert table["options"] == {"timestep_spacing": "trailing"}
