"""Reading suite.toml: cases in order, or one sentence that says what is wrong and what is allowed."""

import itertools
import re

import pytest

from bench.suite.case import DTYPES, Settings
from bench.suite.file import LONGEST_ID, SuiteError, read_suite
from bench.suite.scenarios import SCENARIOS
from bench.suite.schedulers import DDPM as DDPM_KIND
from bench.suite.schedulers import SCHEDULERS, STABLE_DIFFUSION, allowed_schedulers
from bench.suite.selection import select_cases
from bench.suite.tasks import TASKS

SOUND = """\
[models.tiny-sd]
kind = "stable-diffusion"
source = "embedded"

[models.tiny-ddpm]
kind = "ddpm"
source = "embedded"

[[cases]]
model = "tiny-sd"
scheduler = "pndm"
steps = 20
guidance = 7.5
dtype = "float32"
images = 2
prompts = ["a fox", "a cat"]

[[cases]]
model = "tiny-ddpm"
scheduler = "ddim"
steps = 10
images = 3
"""

EMBEDDED = '[models.tiny-ddpm]\nkind = "ddpm"\nsource = "embedded"\n'
FIRST, SECOND, DDPM = "[[cases]] number 1", "[[cases]] number 2", "models.tiny-ddpm"


def in_source(source: str, more: str = "") -> str:
    return EMBEDDED.replace("embedded", source) + more + "\n"


@pytest.fixture
def write(tmp_path):
    def write_suite(text):
        file = tmp_path / "my-suite.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write_suite


@pytest.fixture
def cases_of(write):
    """The cases of the valid suite with one text replaced."""

    def read(old="", new=""):
        assert old in SOUND
        return read_suite(write(SOUND.replace(old, new, 1))).cases

    return read


def sentence_of(file) -> str:
    with pytest.raises(SuiteError) as caught:
        read_suite(file)
    sentence = str(caught.value)
    assert sentence.startswith(f"{file}: "), sentence
    rest = sentence.removeprefix(f"{file}: ")
    assert "\n" not in rest, sentence
    assert re.fullmatch(r".*[^.]\.", rest), f"ends with one full stop: {sentence}"
    assert not re.search(r"\.\s", rest), f"one sentence: {sentence}"
    assert len(rest) < 310, sentence
    return rest


def pipelines(cases) -> list[tuple]:
    return [(case.model.name, case.settings.dtype, case.settings.optimizations) for case in cases]


def test_the_shipped_suite_has_thirty_default_cases():
    cases = select_cases(read_suite(), models=(), slow_dtypes=frozenset({"float16"}), slow=False).cases
    assert len(cases) >= 30
    assert {(case.model.name, case.model.kind, case.model.source) for case in cases} == {
        ("emoji-sd", "stable-diffusion", "embedded"),
        ("emoji-ddpm", "ddpm", "embedded"),
    }


def test_every_scheduler_and_dtype_is_in_the_shipped_suite():
    cases = read_suite().cases
    assert {case.settings.scheduler for case in cases} == set(SCHEDULERS)
    assert {case.settings.dtype for case in cases} == set(DTYPES)


def test_every_shipped_hub_model_has_a_revision_and_allows_pickle():
    hub = [model for model in read_suite().models if model.source == "hub"]
    assert hub
    assert all(model.id and model.revision for model in hub)
    assert not any(model.allow_pickle for model in read_suite().models if model.source != "hub")


def test_shipped_case_ids_are_unique_in_lower_case():
    ids = [case.id.casefold() for case in read_suite().cases]
    assert len(set(ids)) == len(ids)


def test_shipped_case_ids_are_safe_as_file_names():
    for case in read_suite().cases:
        folder, *group, name = case.id.split("/")
        assert folder == case.model.name
        assert group == ([case.settings.sentinel] if case.settings.sentinel else [])
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,100}", name), case.id


def test_shipped_case_ids_leave_room_for_what_is_added_to_them():
    suffix = "@cuda-nvidia-rtx-6000-ada-generation+diffusers-from-0.28-below-0.31"
    assert LONGEST_ID + len(f"{suffix}.png") <= 255
    assert max(len(case.id) for case in read_suite().cases) <= LONGEST_ID


def test_the_plain_case_comes_before_those_that_must_match_it():
    """So that one update can accept all of them on another device."""
    cases = read_suite().cases
    places = {case.id: place for place, case in enumerate(cases)}
    assert all(places[case.plain.id] <= places[case.id] for case in cases)


def test_the_shipped_cases_load_each_pipeline_once():
    runs = [key for key, _ in itertools.groupby(pipelines(read_suite().cases))]
    assert len(runs) == len(set(runs))


def test_cases_are_sorted_by_model_dtype_and_optimizations(write):
    sound = SOUND.replace('dtype = "float32"', 'dtype = ["float16", "float32", "bfloat16"]').replace(
        "steps = 20", "steps = [20, 5]"
    )
    tuned = sound.partition("[[cases]]")[2].partition("[[cases]]")[0]
    text = f'{sound}\n[[cases]]{tuned}optimizations = ["channels-last"]\n\n[[cases]]{tuned}seed = 1\n'
    cases = read_suite(write(text)).cases
    runs = [key for key, _ in itertools.groupby(pipelines(cases))]
    assert runs == [
        ("tiny-sd", "float32", ()),
        ("tiny-sd", "float32", ("channels-last",)),
        ("tiny-sd", "bfloat16", ()),
        ("tiny-sd", "bfloat16", ("channels-last",)),
        ("tiny-sd", "float16", ()),
        ("tiny-sd", "float16", ("channels-last",)),
        ("tiny-ddpm", "float32", ()),
    ]
    assert len(cases) == 3 * 2 * 3 + 1


def test_lists_in_a_case_make_all_combinations(cases_of):
    swept = 'scheduler = ["pndm", "ddim"]\nsteps = [5, 10]\nseed = [0, 9]\nsize = [32, 64]\nguidance = [1, 3]'
    cases = cases_of('scheduler = "pndm"\nsteps = 20\nguidance = 7.5', swept)
    combinations = {
        (settings.scheduler, settings.steps, settings.seed, settings.size, settings.guidance)
        for settings in (case.settings for case in cases if case.model.name == "tiny-sd")
    }
    assert combinations == set(itertools.product(("pndm", "ddim"), (5, 10), (0, 9), (32, 64), (1.0, 3.0)))
    assert len(cases) == len(combinations) + 1


def test_lists_of_prompts_and_optimizations_are_not_a_sweep(cases_of):
    case = cases_of("steps = 20", 'steps = 20\noptimizations = ["channels-last", "vae-slicing"]')[0]
    assert case.settings.optimizations == ("channels-last", "vae-slicing")
    assert case.settings.prompts == ("a fox", "a cat")


def test_a_case_wins_over_the_defaults_of_its_model(write):
    defaults = '\n[models.tiny-ddpm.defaults]\nimages = 8\nsteps = 99\ndtype = "bfloat16"\n'
    text = SOUND.replace("\n[[cases]]", f"{defaults}\n[[cases]]", 1)
    settings = read_suite(write(text)).cases[1].settings
    assert (settings.images, settings.steps, settings.dtype) == (3, 10, "bfloat16")


def test_the_same_case_written_twice_is_one_case(write):
    assert len(read_suite(write(f"{SOUND}\n[[cases]]{SOUND.rpartition('[[cases]]')[2]}")).cases) == 2


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("", "", "tiny-sd/pndm-s20-g7.5-fp32"),
        ("steps = 20", "steps = 5", "tiny-sd/pndm-s5-g7.5-fp32"),
        ("guidance = 7.5", "guidance = 7", "tiny-sd/pndm-s20-g7-fp32"),
        ("guidance = 7.5", "guidance = 0", "tiny-sd/pndm-s20-g0-fp32"),
        ('"pndm"', '"euler-ancestral"', "tiny-sd/euler-ancestral-s20-g7.5-fp32"),
        ('"float32"', '"bfloat16"', "tiny-sd/pndm-s20-g7.5-bf16"),
        ('"float32"', '"float16"', "tiny-sd/pndm-s20-g7.5-fp16"),
        ("steps = 20", "steps = 20\nsize = 128", "tiny-sd/pndm-s20-g7.5-fp32-128px"),
        ("steps = 20", "steps = 20\nseed = 42", "tiny-sd/pndm-s20-g7.5-fp32-seed42"),
        ("steps = 20", 'steps = 20\noptimizations = ["fused-qkv"]', "tiny-sd/pndm-s20-g7.5-fp32-fused-qkv"),
        ("steps = 20", "steps = 20\nslow = true", "tiny-sd/pndm-s20-g7.5-fp32"),
    ],
)
def test_the_id_of_a_case_names_its_settings_and_never_changes(cases_of, old, new, name):
    assert cases_of(old, new)[0].id == name


def test_a_ddpm_case_has_no_guidance_in_its_id(cases_of):
    assert cases_of()[1].id == "tiny-ddpm/ddim-s10-fp32"


def test_each_image_has_its_own_seed_counted_from_that_of_the_case():
    assert Settings(scheduler="ddim", steps=1, images=3, seed=5).seeds == [5, 6, 7]


@pytest.mark.parametrize("name", allowed_schedulers("ddpm"))
def test_schedulers_that_work_in_a_ddpm_pipeline_are_accepted(cases_of, name):
    assert cases_of('"ddim"', f'"{name}"')[1].settings.scheduler == name


@pytest.mark.parametrize("name", allowed_schedulers("stable-diffusion"))
def test_schedulers_that_work_in_stable_diffusion_are_accepted(cases_of, name):
    assert cases_of('"pndm"', f'"{name}"')[0].settings.scheduler == name


MISTAKES: dict[str, tuple[str, str, list[str]]] = {
    "unknown table": ("[models.tiny-sd]", "[model.tiny-sd]", ["'model'", "allowed: models, cases"]),
    "no models": (SOUND, "[[cases]]\nsteps = 1", ["[models]", "missing or empty"]),
    "no cases": (SOUND, EMBEDDED, ["[cases]", "missing or empty"]),
    "empty file": (SOUND, "", ["[models]", "missing or empty"]),
    "case that is no table": (SOUND, f"cases = ['ddim']\n{EMBEDDED}", [FIRST]),
    "invalid TOML": ("steps = 20", "steps = = 20", ["not valid TOML", "line 12"]),
    "model that is no table": (EMBEDDED, "[models]\ntiny-ddpm = 3", [DDPM, "table"]),
    "unknown key of a model": (
        EMBEDDED,
        in_source("embedded", "colour = 1"),
        [DDPM, "colour", "allowed", "kind", "source"],
    ),
    "misspelt key of a model": ('kind = "ddpm"', 'knid = "ddpm"', [DDPM, "knid", "allowed", "kind", "source"]),
    "missing kind": ('kind = "ddpm"\n', "", [DDPM, "kind"]),
    "unknown kind": ('kind = "ddpm"', 'kind = "flux"', [DDPM, "kind", "flux", "stable-diffusion", "ddpm"]),
    "unknown source": (EMBEDDED, in_source("disk"), [DDPM, "source", "disk", "embedded", "hub", "local"]),
    "hub without id": (EMBEDDED, in_source("hub"), [DDPM, "'hub' needs the key 'id'"]),
    "local without path": (EMBEDDED, in_source("local"), [DDPM, "'local' needs the key 'path'"]),
    "embedded with id": (
        EMBEDDED,
        in_source("embedded", 'id = "a/b"'),
        [DDPM, "'embedded' does not take the key 'id'"],
    ),
    "hub with path": (
        EMBEDDED,
        in_source("hub", 'id = "a/b"\npath = "c"'),
        [DDPM, "'hub' does not take the key 'path'"],
    ),
    "model with a second name": (EMBEDDED, in_source("embedded", 'name = "other"'), [DDPM, "name"]),
    "defaults that are no table": (EMBEDDED, in_source("embedded", "defaults = 3"), [DDPM, "defaults"]),
    "model name in capitals": ("[models.tiny-ddpm]", "[models.Tiny_DDPM]", ["models.Tiny_DDPM", "name", "a-z0-9"]),
    "model name as a path": ("[models.tiny-ddpm]", '[models."../tiny"]', ["models.../tiny", "name", "a-z0-9"]),
    "unknown model": ('model = "tiny-ddpm"', 'model = "tiny"', [SECOND, "model", "'tiny'", "tiny-sd, tiny-ddpm"]),
    "case without model": ('model = "tiny-ddpm"\n', "", [SECOND, "model", "tiny-sd, tiny-ddpm"]),
    "sweep over models": ('model = "tiny-ddpm"', 'model = ["tiny-ddpm"]', [SECOND, "model", "tiny-sd, tiny-ddpm"]),
    "unknown key of a case": (
        "steps = 20",
        "steps = 20\ncolour = 1",
        [FIRST, "colour", "allowed", "scheduler", "steps"],
    ),
    "misspelt key of a case": ("steps = 20", "stepps = 20", [FIRST, "stepps", "allowed", "scheduler", "steps"]),
    "missing steps": ("steps = 20\n", "", [FIRST, "steps"]),
    "no steps": ("steps = 20", "steps = 0", [FIRST, "steps", "greater than or equal to 1", "not 0"]),
    "too many steps": ("steps = 20", "steps = 1001", [FIRST, "steps", "less than or equal to 1000", "not 1001"]),
    "steps in words": ("steps = 20", 'steps = "many"', [FIRST, "steps", "integer", "'many'"]),
    "mistake inside a sweep": ("steps = 20", "steps = [10, 0]", [FIRST, "steps", "not 0"]),
    "empty sweep": ("steps = 20", "steps = []", [FIRST, "steps"]),
    "no images": ("images = 2", "images = 0", [FIRST, "images", "greater than or equal to 1"]),
    "negative seed": ("steps = 20", "steps = 20\nseed = -1", [FIRST, "seed", "greater than or equal to 0"]),
    "odd size": ("steps = 20", "steps = 20\nsize = 20", [FIRST, "size", "multiple of 8", "not 20"]),
    "bad dtype": ('"float32"', '"float64"', [FIRST, "dtype", "float64", *DTYPES]),
    "bad dtype in a sweep": ('"float32"', '["float32", "fp32"]', [FIRST, "dtype", "fp32", *DTYPES]),
    "unknown scheduler": ('"pndm"', '"pmdn"', [FIRST, "scheduler", "'pmdn'", *SCHEDULERS]),
    "unknown optimization": (
        "steps = 20",
        'steps = 20\noptimizations = ["speed"]',
        [FIRST, "optimizations", "'speed'", "nearest: "],
    ),
    "missing guidance": ("guidance = 7.5\n", "", [FIRST, "guidance"]),
    "negative guidance": ("guidance = 7.5", "guidance = -1", [FIRST, "guidance", "greater than or equal to 0"]),
    "guidance that is no number": ("guidance = 7.5", "guidance = nan", [FIRST, "guidance", "nan"]),
    "too few prompts": ('["a fox", "a cat"]', '["a fox"]', [FIRST, "2 images", "prompts", "not 1"]),
    "too many prompts": ('["a fox", "a cat"]', '["a", "b", "c"]', [FIRST, "2 images", "prompts", "not 3"]),
    "no prompts": ('prompts = ["a fox", "a cat"]', "", [FIRST, "2 images", "prompts", "not 0"]),
    "prompts as one text": ('["a fox", "a cat"]', '"a fox"', [FIRST, "prompts", "'a fox'"]),
    "PNDM in DDPM": ('"ddim"', '"pndm"', [SECOND, "scheduler 'pndm'", "ddpm pipeline", *allowed_schedulers("ddpm")]),
    "Euler in DDPM": ('"ddim"', '"euler"', [SECOND, "scheduler 'euler'", "ddpm pipeline", *allowed_schedulers("ddpm")]),
    "guidance in DDPM": ("steps = 10", "steps = 10\nguidance = 7.5", [SECOND, "ddpm", "guidance"]),
    "guidance 0 in DDPM": ("steps = 10", "steps = 10\nguidance = 0", [SECOND, "ddpm", "guidance"]),
    "prompts in DDPM": ("steps = 10", 'steps = 10\nprompts = ["a", "b", "c"]', [SECOND, "ddpm", "prompts"]),
    "size in DDPM": ("steps = 10", "steps = 10\nsize = 64", [SECOND, "ddpm", "size"]),
    "attention setting in DDPM": (
        "steps = 10",
        'steps = 10\noptimizations = ["fused-qkv"]',
        [SECOND, "optimization 'fused-qkv'", "ddpm pipeline"],
    ),
    "keyword of the call that the suite sets": (
        "steps = 20",
        "steps = 20\ncall = { num_inference_steps = 9 }",
        [FIRST, "call: ", "'num_inference_steps'", "'steps'"],
    ),
    "generator in the call": ("steps = 20", "steps = 20\ncall = { generator = 1 }", [FIRST, "'generator'", "'seed'"]),
    "output type in a sweep of calls": (
        "steps = 20",
        'steps = 20\ncall = [{ eta = 1.0 }, { output_type = "pil" }]',
        [FIRST, "'output_type'"],
    ),
    "prompt in the call": ("steps = 20", 'steps = 20\ncall = { prompt = "x" }', [FIRST, "'prompt'", "'prompts'"]),
    "return_dict in the call": ("steps = 20", "steps = 20\ncall = { return_dict = false }", [FIRST, "remove it"]),
    "two heights": (
        "steps = 20",
        "steps = 20\nsize = 64\ncall = { height = 72 }",
        [FIRST, "call: 'height'", "'size'", "remove one"],
    ),
    "an id too long for a file name": (
        "steps = 20",
        f'steps = 20\ncall = {{ negative_prompt = ["{"a blurry picture, " * 8}", "worse"] }}',
        [FIRST, "characters", str(LONGEST_ID), "file name", "shorten"],
    ),
    "two cases with one id": (
        SOUND,
        f"{SOUND}\n[[cases]]\nmodel = 'tiny-ddpm'\nscheduler = 'ddim'\nsteps = 10\nimages = 4",
        ["[[cases]] number 3", "two different cases", "'tiny-ddpm/ddim-s10-fp32'"],
    ),
}


@pytest.mark.parametrize(("old", "new", "words"), MISTAKES.values(), ids=MISTAKES)
def test_every_mistake_is_one_sentence_with_file_and_key(write, old, new, words):
    assert old in SOUND
    sentence = sentence_of(write(SOUND.replace(old, new, 1)))
    missing = [word for word in words if word not in sentence]
    assert not missing, sentence


def test_a_missing_file_is_one_sentence(tmp_path):
    assert "No such file" in sentence_of(tmp_path / "nowhere.toml")


def test_a_folder_instead_of_the_file_is_one_sentence(tmp_path):
    assert "cannot be read" in sentence_of(tmp_path)


def test_a_file_in_another_encoding_is_one_sentence(tmp_path):
    file = tmp_path / "latin.toml"
    file.write_bytes('[models.tiny]\nid = "é"'.encode("latin-1"))
    assert "not valid TOML" in sentence_of(file)


def test_a_sentence_never_repeats_the_full_entry(write):
    sentence = sentence_of(write(SOUND.replace("steps = 20\n", "")))
    assert "a fox" not in sentence


SENTINELS = (
    SOUND
    + """
[models.tiny-sd.sentinel-defaults]
images = 1
prompts = ["a fox"]
guidance = 7.5

[[sentinels]]
model = "tiny-sd"
group = "options"
scheduler = ["ddim", "euler"]
steps = [1, 5]
options = [{ timestep_spacing = "trailing" }, { prediction_type = "v_prediction" }]

[[sentinels]]
model = "tiny-sd"
group = "ways"
scheduler = "ddim"
steps = 2
scenario = ["plain", "called-twice", "one-generator"]
"""
)
PART = "[[sentinels]] number 2"


def test_a_sentinel_has_its_own_defaults_and_sweeps_over_options(write):
    sentinels = [case for case in read_suite(write(SENTINELS)).cases if case.settings.sentinel == "options"]
    assert len(sentinels) == 8
    assert {case.settings.images for case in sentinels} == {1}
    assert "tiny-sd/options/euler-s5-g7.5-fp32-trailing" in {case.id for case in sentinels}
    assert {case.settings.options.get("prediction_type") for case in sentinels} == {None, "v_prediction"}


def test_sentinels_are_many_and_cover_every_scheduler():
    sentinels = [case for case in read_suite().cases if case.settings.sentinel]
    assert len(sentinels) >= 200
    named = {(case.model.kind, case.settings.scheduler) for case in sentinels}
    for kind in (STABLE_DIFFUSION, DDPM_KIND):
        classes = {SCHEDULERS[name].class_name for name in allowed_schedulers(kind)}
        assert {SCHEDULERS[name].class_name for one, name in named if one == kind} == classes


def test_every_scenario_and_task_is_in_the_shipped_suite():
    cases = read_suite().cases
    assert {case.settings.scenario for case in cases} == set(SCENARIOS)
    assert {case.settings.task for case in cases} == set(TASKS)


def test_what_must_give_the_plain_pictures_names_its_plain_case(write):
    plain = {case.settings.scenario: case.plain.settings.scenario for case in read_suite(write(SENTINELS)).cases}
    assert plain == {"plain": "plain", "called-twice": "plain", "one-generator": "one-generator"}


def test_a_timed_case_with_an_optimization_has_its_own_golden(write):
    text = SOUND.replace("steps = 20", 'steps = 20\noptimizations = ["channels-last"]')
    case = read_suite(write(text)).cases[0]
    assert case.plain == case


def test_settings_that_are_not_in_use_are_not_described(cases_of):
    assert not {"options", "call", "task", "scenario", "sentinel", "tag", "issue", "slow"} & set(
        cases_of()[0].settings.described()
    )


SENTINEL_MISTAKES = {
    "no group": ('group = "ways"\n', "", [PART, "group"]),
    "a group that is no name": ('group = "ways"', 'group = "My Ways"', [PART, "sentinel"]),
    "no plain case": ('["plain", "called-twice", "one-generator"]', '"called-twice"', ["ddim-s2", "not in the suite"]),
    "unknown scenario": ('"called-twice", ', '"called-thrice", ', [PART, "'called-thrice'", "called-twice"]),
    "unknown task": ("steps = 2\n", 'steps = 2\ntask = "video"\n', [PART, "'video'", *TASKS]),
    "an option that is no value": ("steps = 2\n", "steps = 2\noptions = { order = { deep = 1 } }\n", [PART, "options"]),
    "unknown key": ("steps = 2\n", "steps = 2\nsentinel = 'x'\n", [PART, "sentinel", "group", "scenario"]),
    "two cases of one id": (
        'group = "ways"\nscheduler = "ddim"\n',
        'group = "ways"\nscheduler = "ddim"\nprompts = [["a"], ["b"]]\n',
        [PART, "another tag"],
    ),
    "a scenario that is timed": ("steps = 20\n", 'steps = 20\nscenario = "singles"\n', [FIRST, "[[sentinels]]"]),
}


@pytest.mark.parametrize(("old", "new", "words"), SENTINEL_MISTAKES.values(), ids=SENTINEL_MISTAKES)
def test_every_mistake_in_a_sentinel_is_one_sentence(write, old, new, words):
    assert old in SENTINELS
    sentence = sentence_of(write(SENTINELS.replace(old, new, 1)))
    for word in words:
        assert word in sentence


def test_a_sweep_over_images_has_as_many_prompts_and_ids_that_differ(write):
    sweep = SOUND.replace("images = 2\nprompts", "images = [1, 2, 5]\nprompts", 1)
    cases = [case for case in read_suite(write(sweep)).cases if case.model.name == "tiny-sd"]
    assert [len(case.settings.prompts) for case in cases] == [1, 2, 5]
    assert cases[-1].settings.prompts == ("a fox", "a cat", "a fox", "a cat", "a fox")
    assert [case.id.rpartition("-")[2] for case in cases] == ["images1", "images2", "images5"]
