"""Training data, tokenizer, loop and command line: a checkpoint can be made again, and a kill loses little."""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTokenizer

from bench.errors import UsageError
from bench.training import architectures, objectives, stages
from bench.training.__main__ import STAGES, main
from bench.training.architectures import TOKENS, write_tokenizer
from bench.training.emoji import BACKGROUNDS, WHITE, Pair, Pictures, all_pairs, find_font, read_emoji, split_pairs
from bench.training.loop import LOSS_LOG, STATE, Objective, TrainingPlan, averaged, load_averaged, save_state, train

pytestmark = pytest.mark.usefixtures("one_thread")

PROG = "python -m bench.training"
SIZE = 32
PLAN = TrainingPlan(steps=20, batch=8, learning_rate=0.1, warmup=5, ema=0.9)


@pytest.fixture(scope="module")
def draw() -> Pictures:
    """Draws pairs at the smaller of the two sizes."""
    try:
        return Pictures(SIZE)
    except UsageError as missing:
        pytest.skip(str(missing))


def test_no_two_pairs_look_the_same(draw):
    pictures = draw.draw(all_pairs()).numpy()
    assert pictures.shape == (len(all_pairs()), 3, SIZE, SIZE)
    assert len({picture.tobytes() for picture in pictures}) == len(all_pairs())
    assert (pictures.min(), pictures.max()) >= (-1, 0.9)
    assert pictures.max() <= 1


def test_every_emoji_fills_its_picture_but_not_the_edge(draw):
    for name, colour in BACKGROUNDS.items():
        pictures = draw.draw([Pair(emoji, name) for emoji in read_emoji()])
        expected = (torch.tensor(colour) / 127.5 - 1)[None, :, None]
        edges = torch.cat([pictures[:, :, 0], pictures[:, :, -1], pictures[:, :, :, 0], pictures[:, :, :, -1]], dim=2)
        assert torch.allclose(edges, expected.expand_as(edges), atol=1e-5)
        drawn = ((pictures - expected[..., None]).abs().amax(dim=1) > 0.02).float().mean(dim=(1, 2))
        assert drawn.min() > 0.08


def test_the_same_pairs_give_the_same_pictures(draw):
    pairs = all_pairs()[::97]
    assert torch.equal(draw.draw(pairs), Pictures(SIZE).draw(pairs))


def test_no_emoji_is_listed_twice():
    lines = Path(stages.__file__).with_name("emoji.tsv").read_text(encoding="utf-8").splitlines()[1:]
    characters, names = zip(*(line.split("\t") for line in lines), strict=True)
    assert len(set(characters)) == len(set(names)) == len(lines) == len(read_emoji())


def test_every_emoji_has_every_background_once():
    pairs = all_pairs()
    assert len(set(pairs)) == len(pairs) == len(read_emoji()) * len(BACKGROUNDS)
    assert len({pair.prompt for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("pair", "prompt"),
    [
        (Pair("panda"), "panda"),
        (Pair("fox", "blue"), "fox on a blue background"),
        (Pair("fox", "orange"), "fox on an orange background"),
        (Pair("fox", WHITE), "fox"),
    ],
)
def test_a_prompt_is_english(pair, prompt):
    assert pair.prompt == prompt


def test_a_tenth_is_held_out_and_never_trained():
    trained, held_out = split_pairs()
    assert len(held_out) == round(0.1 * len(all_pairs()))
    assert not set(trained) & set(held_out)
    assert set(trained) | set(held_out) == set(all_pairs())
    assert len(trained) + len(held_out) == len(all_pairs())


def test_every_emoji_and_every_colour_stays_in_training():
    trained, held_out = split_pairs()
    assert {pair.name for pair in trained} == set(read_emoji())
    assert {pair.background for pair in trained} == set(BACKGROUNDS)
    assert all(pair.background != WHITE for pair in held_out)
    left = Counter(pair.background for pair in trained)
    assert min(left.values()) > 0.5 * len(read_emoji())


def test_the_split_is_that_of_the_trained_checkpoints():
    held_out = split_pairs()[1]
    assert held_out == split_pairs()[1]
    assert held_out[:2] == [Pair("Christmas tree", "brown"), Pair("Christmas tree", "orange")]


def test_what_is_previewed_can_be_drawn():
    assert set(objectives.PREVIEW_PAIRS) <= set(all_pairs())


def test_a_batch_depends_on_its_generator_and_is_a_fifth_plain():
    pairs = split_pairs()[0]

    def batch(seed: int) -> list[Pair]:
        return objectives.draw_batch(pairs, 2000, torch.Generator().manual_seed(seed))

    assert batch(1) == batch(1)
    assert batch(1) != batch(2)
    assert set(batch(1)) <= set(pairs)
    assert sum(pair.background == WHITE for pair in batch(1)) / 2000 == pytest.approx(0.2, abs=0.04)


def test_easy_timesteps_weigh_less_and_none_weighs_more_than_one():
    scheduler = architectures.ddpm_scheduler()
    weights = objectives.min_snr_weight(scheduler.alphas_cumprod)
    assert weights.max() == 1
    assert (weights.diff() >= 0).all()
    ratio = scheduler.alphas_cumprod[0] / (1 - scheduler.alphas_cumprod[0])
    assert weights[0] == pytest.approx(float(5 / ratio), rel=1e-4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer([pair.prompt for pair in all_pairs()], folder)
    return CLIPTokenizer.from_pretrained(folder)


def words(prompt: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d|[^\s\w]+", prompt)


def test_every_word_is_one_token_and_every_prompt_fits(tokenizer):
    for pair in all_pairs():
        tokens = tokenizer(pair.prompt).input_ids
        assert len(tokens) == len(words(pair.prompt)) + 2 <= TOKENS
        assert (tokens[0], tokens[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_a_prompt_comes_back_from_its_tokens(tokenizer):
    for pair in all_pairs():
        back = tokenizer.decode(tokenizer(pair.prompt).input_ids, skip_special_tokens=True)
        assert words(back) == words(pair.prompt.lower())


def test_a_word_that_was_never_trained_is_spelt_and_not_lost(tokenizer):
    tokens = tokenizer("Zyzzyva über").input_ids
    assert tokenizer.unk_token_id not in tokens[1:-1]
    assert tokenizer.decode(tokens, skip_special_tokens=True).strip() == "zyzzyva über"


def test_a_long_prompt_is_cut_and_a_short_one_filled(tokenizer):
    for prompt in ("panda " * 50, "panda", ""):
        tokens = tokenizer(prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length)
        assert len(tokens.input_ids) == TOKENS
        assert tokens.input_ids[-1] == tokenizer.eos_token_id


def test_the_text_encoder_knows_the_tokens_that_start_and_end(tokenizer):
    config = architectures.text_encoder(len(tokenizer)).config
    assert (config.bos_token_id, config.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert config.vocab_size == max(tokenizer.get_vocab().values()) + 1
    assert config.max_position_embeddings == tokenizer.model_max_length == TOKENS


def test_the_tokenizer_is_written_the_same_every_time(tmp_path):
    # Continued training and export write it again: a word must keep the number that it was trained with.
    prompts = [pair.prompt for pair in all_pairs()]
    for name in map(str, range(5)):
        write_tokenizer(prompts, tmp_path / name)
        for path in (tmp_path / "0").iterdir():
            assert (tmp_path / name / path.name).read_bytes() == path.read_bytes(), path.name


def fit(loss: Callable[..., torch.Tensor] | None = None) -> Objective:
    """Four weights that learn to add; the same ones every time."""
    module = torch.nn.Linear(4, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.5, -0.5, 0.25, 0.0]]))
        module.bias.fill_(3.0)

    def squared(modules: torch.nn.Module, count: int, generator: torch.Generator) -> torch.Tensor:
        numbers = torch.randn(count, 4, generator=generator)
        return (modules(numbers).float() - numbers.sum(dim=1, keepdim=True)).square().mean()

    return Objective(module, loss or squared, lambda _module: Image.new("RGB", (8, 8)))


def stopping_at(step: int, error: BaseException | None = None, value: float | None = None) -> Objective:
    """An objective whose step of this number, from the start, raises or has this loss."""
    plain, count = fit(), iter(range(10**6))

    def loss(modules: torch.nn.Module, size: int, generator: torch.Generator) -> torch.Tensor:
        if next(count) == step:
            if error:
                raise error
            return plain.loss(modules, size, generator) * torch.tensor(value)
        return plain.loss(modules, size, generator)

    return Objective(plain.modules, loss, plain.preview)


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / STATE, weights_only=True)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_loop_learns(tmp_path):
    objective = fit()
    generator = torch.Generator().manual_seed(1)
    before = objective.loss(objective.modules, 100, generator).item()
    train(objective, TrainingPlan(steps=200, batch=32, learning_rate=0.1, warmup=5), tmp_path / "fit")
    after = objective.loss(load_averaged(fit().modules, tmp_path / "fit"), 100, generator).item()
    assert after < 0.05 * before
    assert (tmp_path / "fit" / "preview-000200.png").is_file()


@pytest.mark.parametrize("killed_at", [0, 3, 7, 10, 19])
def test_a_resumed_training_gives_the_same_weights(killed_at, tmp_path):
    train(fit(), PLAN, tmp_path / "whole", save_every=5)
    with pytest.raises(KeyboardInterrupt):
        train(stopping_at(killed_at, KeyboardInterrupt()), PLAN, tmp_path / "resumed", save_every=5)
    assert (tmp_path / "resumed" / STATE).is_file() == (killed_at >= 5)
    train(fit(), PLAN, tmp_path / "resumed", save_every=5)
    whole, resumed = state(tmp_path / "whole"), state(tmp_path / "resumed")
    assert resumed["step"] == whole["step"] == PLAN.steps
    assert equal(whole["modules"], resumed["modules"])
    assert equal(whole["ema"], resumed["ema"])


def test_another_seed_gives_other_weights(tmp_path):
    train(fit(), PLAN, tmp_path / "one")
    train(fit(), TrainingPlan(**(vars(PLAN) | {"seed": 1})), tmp_path / "other")
    assert not equal(state(tmp_path / "one")["modules"], state(tmp_path / "other")["modules"])


def test_a_training_that_is_done_is_not_done_again(tmp_path):
    train(fit(), PLAN, tmp_path / "fit")
    before = (tmp_path / "fit" / STATE).read_bytes()
    train(stopping_at(0, AssertionError("trained again")), PLAN, tmp_path / "fit")
    assert (tmp_path / "fit" / STATE).read_bytes() == before


def half_a_file(_state: Any, file: Any) -> None:
    file.write(b"half")
    raise KeyboardInterrupt


def no_replace(*_paths: Path) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("owner", "name", "killed"), [(torch, "save", half_a_file), (os, "replace", no_replace)])
def test_a_kill_while_the_state_is_written_leaves_the_old_one(owner, name, killed, tmp_path, monkeypatch):
    train(fit(), PLAN, tmp_path / "fit")
    before = (tmp_path / "fit" / STATE).read_bytes()
    longer = TrainingPlan(**(vars(PLAN) | {"steps": 25}))
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with pytest.raises(KeyboardInterrupt):
            train(fit(), longer, tmp_path / "fit")
    assert (tmp_path / "fit" / STATE).read_bytes() == before
    train(fit(), longer, tmp_path / "fit")
    assert state(tmp_path / "fit")["step"] == 25


def test_a_state_is_replaced_atomically(tmp_path):
    path = tmp_path / STATE
    save_state(path, {"step": 1})
    save_state(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == [STATE]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(value, tmp_path):
    with pytest.raises(FloatingPointError, match=r"^fit: the loss of step 12 is (nan|inf)\.$"):
        train(stopping_at(12, value=value), PLAN, tmp_path / "fit", save_every=5)
    kept = state(tmp_path / "fit")
    assert kept["step"] == 10
    assert all(torch.isfinite(weight).all() for weight in kept["modules"].values())


def test_the_log_has_steps_pictures_seconds_and_loss(tmp_path):
    train(fit(), PLAN, tmp_path / "fit", save_every=8)
    lines = [json.loads(line) for line in (tmp_path / "fit" / LOSS_LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [8, 16, 20]
    assert stages.read_progress(tmp_path / "fit").keys() == {"steps", "batch", "hours", "loss"}
    assert stages.read_progress(tmp_path / "fit")["batch"] == 8
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_the_learning_rate_rises_stays_and_falls():
    plan = TrainingPlan(steps=1000, batch=1, learning_rate=1, warmup=100, decay=0.3)
    rates = np.array([plan.rate(step) for step in range(plan.steps)])
    assert rates[0] == pytest.approx(0.01)
    assert rates[49] == pytest.approx(0.5)
    assert (rates[99:700] == 1).all()
    assert rates[850] == pytest.approx(0.5)
    assert np.diff(rates[:100]).min() > 0
    assert np.diff(rates[701:995]).max() < 0
    assert rates.min() == 0.01


def test_the_optimizer_follows_the_plan(tmp_path, monkeypatch):
    used: list[float] = []
    step = torch.optim.AdamW.step

    def noting(self: Any, *arguments: Any) -> Any:
        used.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", noting)
    train(fit(), TrainingPlan(**(vars(PLAN) | {"steps": 20})), tmp_path / "fit", save_every=20)
    assert used == pytest.approx([0.1 * PLAN.rate(number) for number in range(20)])


def follow(ema: Any, module: torch.nn.Linear, value: float, times: int) -> float:
    """Average of the bias after it has been ``value`` for so many updates."""
    for _ in range(times):
        with torch.no_grad():
            module.bias.fill_(value)
        ema.update_parameters(module)
    return ema.module.bias.item()


def test_the_average_soon_forgets_the_untrained_weights():
    module = torch.nn.Linear(1, 1)
    ema = averaged(module, 0.999)
    follow(ema, module, 100.0, 1)
    assert follow(ema, module, 1.0, 50) == pytest.approx(1.0, abs=0.01)


def test_the_average_is_slow_later():
    module = torch.nn.Linear(1, 1)
    ema = averaged(module, 0.5)
    follow(ema, module, 0.0, 20)
    assert follow(ema, module, 1.0, 1) == pytest.approx(0.5)
    assert follow(ema, module, 1.0, 1) == pytest.approx(0.75)


def test_an_average_is_loaded_for_use_and_not_for_training(tmp_path):
    train(fit(), PLAN, tmp_path / "fit")
    loaded = load_averaged(fit().modules, tmp_path / "fit")
    assert not loaded.training
    assert torch.equal(loaded.weight, state(tmp_path / "fit")["ema"]["module.weight"])


def run_main(*arguments: object) -> Any:
    """The exit code of the command line."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return ended.code


def test_the_module_runs_and_its_help_names_every_stage(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.training", "--help"])
    monkeypatch.delitem(sys.modules, "bench.training.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("bench.training", run_name="__main__")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for stage, does in STAGES.items():
        assert re.search(rf"^ +{stage}\b", printed, re.MULTILINE)
        assert does.split()[0] in printed
        assert run_main(stage, "--help") == 0


@pytest.mark.parametrize("arguments", [["no-such-stage"], [], ["export", "--steps=1"], ["ddpm", "--steps=many"]])
def test_a_command_line_that_makes_no_sense_is_exit_code_4(arguments, capsys):
    assert run_main(*arguments) == 4
    assert "usage: python -m bench.training" in capsys.readouterr().err


def test_every_stage_that_trains_has_a_plan():
    assert set(stages.PLANS) == set(STAGES) - {"export", "card"}
    assert {stage for parts in stages.EXPORTED.values() for stage in parts} == set(stages.PLANS)


@pytest.mark.parametrize("stage", ["vae", "ddpm"])
def test_a_missing_font_is_one_sentence(stage, tmp_path, capsys):
    assert run_main(stage, "--font", tmp_path / "no.ttf", "--work", tmp_path / "work") == 4
    printed = capsys.readouterr().err
    assert printed.startswith(f"{PROG}: Noto Color Emoji not found at {tmp_path / 'no.ttf'}: install it")
    assert printed.count("\n") == 1
    assert not (tmp_path / "work").exists()


def test_without_a_font_every_place_that_was_searched_is_named(tmp_path, monkeypatch):
    places = (tmp_path / "one.ttf", tmp_path / "other.ttf")
    monkeypatch.setattr("bench.training.emoji.FONT_CANDIDATES", places)
    with pytest.raises(UsageError, match="--font PATH") as missing:
        find_font()
    assert all(str(place) in str(missing.value) for place in places)
    places[1].touch()
    assert find_font() == places[1]


@pytest.mark.parametrize(("stage", "earlier"), [("sd", "vae"), ("decoder", "vae"), ("ddpm-finish", "ddpm")])
def test_a_stage_before_its_turn_is_one_sentence(stage, earlier, tmp_path, capsys):
    assert run_main(stage, "--work", tmp_path) == 4
    missing = tmp_path / earlier / STATE
    printed = f"{PROG}: {missing} not found: train `{earlier}` first (python -m bench.training --help).\n"
    assert capsys.readouterr().err == printed


def test_a_training_that_diverges_is_exit_code_1(tmp_path, monkeypatch, capsys):
    def diverging(*_arguments: object) -> None:
        raise FloatingPointError("ddpm: the loss of step 12 is nan.")

    monkeypatch.setattr(stages, "train", diverging)
    monkeypatch.setattr(objectives, "image_objective", lambda *_arguments, **_keywords: fit())
    assert run_main("ddpm", "--work", tmp_path) == 1
    assert capsys.readouterr().err == f"{PROG}: ddpm: the loss of step 12 is nan.\n"


def test_a_restart_discards_the_last_state_and_uses_the_options(tmp_path, monkeypatch):
    trainings: list[tuple[TrainingPlan, bool]] = []

    def noting(_objective: Objective, plan: TrainingPlan, folder: Path) -> None:
        trainings.append((plan, (folder / STATE).is_file()))

    monkeypatch.setattr(stages, "train", noting)
    monkeypatch.setattr(objectives, "image_objective", lambda *_arguments, **_keywords: fit())
    (tmp_path / "ddpm").mkdir()
    (tmp_path / "ddpm" / STATE).touch()
    main(["ddpm", "--work", str(tmp_path), "--steps=7", "--batch=3", "--seed=9"])
    main(["ddpm", "--work", str(tmp_path), "--restart"])
    (chosen, kept), (default, still_there) = trainings
    assert (chosen.steps, chosen.batch, chosen.seed, kept) == (7, 3, 9, True)
    assert (default, still_there) == (stages.PLANS["ddpm"], False)
