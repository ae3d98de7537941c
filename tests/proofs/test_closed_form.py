"""Schedulers against goldens and against the truth; ``bench/proofs/closed_form/README.md`` says what was found."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from bench.proofs.closed_form import __main__ as command
from bench.proofs.closed_form import goldens as store
from bench.proofs.closed_form.defects import DEFECTS
from bench.proofs.closed_form.gaussian import MEAN, STD, Level, denoise, flow, predict, spread
from bench.proofs.closed_form.moments import SAMPLERS, STEPS, draw_batch, propagate, statistical_limits
from bench.proofs.closed_form.moments import measured_order as order_of_moments
from bench.proofs.closed_form.networks import VARIANCE_PRESERVING, alphas_cumprod
from bench.proofs.closed_form.outcomes import FLOORS, ILL_CONDITIONED, NOISE, Outcome, compare, measured_limit, outcome
from bench.proofs.closed_form.rounding import Twin
from bench.proofs.closed_form.sampling import NotInDiffusers, build
from bench.proofs.closed_form.settings import Setting, Sweep, all_settings, axis
from bench.proofs.closed_form.truth import METHODS, SLACK, SMOOTH, Method, above_rounding, error, measured_order

SETTINGS = all_settings()
GOLDENS = store.read_goldens()
LIMITS = store.read_limits()
CLASSES = sorted({setting.class_name for setting in SETTINGS.values()})
SOME = Setting("DDIMScheduler", VARIANCE_PRESERVING, 4, {"clip_sample": False}, chosen=("for this test",))

pytestmark = pytest.mark.usefixtures("one_thread", "quiet_diffusers")


@pytest.fixture
def quiet_diffusers():
    """Some settings cause warnings in every run."""
    before = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity_error()
    yield
    diffusers.logging.set_verbosity(before)


def differences(class_name: str) -> list[str]:
    """What differs from its golden, and what this release does not know, for one scheduler."""
    changed = []
    for name, setting in SETTINGS.items():
        if setting.class_name != class_name:
            continue
        try:
            found = compare(setting, outcome(setting), GOLDENS[name], LIMITS.get(name))
        except NotInDiffusers as missing:
            changed.append(f"{name}: {missing}")
            continue
        if found:
            changed.append(f"{found.setting}: {found.sentence}")
    return changed


def is_finite(name: str) -> bool:
    golden = GOLDENS[name]
    return not isinstance(golden, str) and all(map(math.isfinite, golden))


# The goldens


def test_every_setting_has_a_golden_and_every_golden_a_setting():
    assert len(SETTINGS) >= 500
    assert set(SETTINGS) == set(GOLDENS)


@pytest.mark.parametrize("class_name", CLASSES)
def test_goldens(class_name):
    """Final samples are those that were accepted, within what rounding may do; nothing has disappeared."""
    changed = differences(class_name)
    assert not changed, f"{len(changed)} settings changed:\n" + "\n".join(changed)


def test_limits_are_of_settings_and_few_are_ill_conditioned():
    assert set(LIMITS) <= set(SETTINGS)
    assert all(limit >= FLOORS[SETTINGS[name].dtype] for name, limit in LIMITS.items())
    ill = [name for name, limit in LIMITS.items() if limit > ILL_CONDITIONED]
    assert len(ill) < 0.08 * len(SETTINGS)


def test_a_scheduler_that_disappears_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(diffusers, "IPNDMScheduler", None)
    assert f"diffusers {diffusers.__version__} has no IPNDMScheduler" in differences("IPNDMScheduler")[0]
    few = {name: setting for name, setting in SETTINGS.items() if setting.class_name == "IPNDMScheduler"}
    monkeypatch.setattr(command, "all_settings", lambda: few)
    monkeypatch.setattr(command, "read_goldens", lambda path: {name: GOLDENS[name] for name in few})
    assert command.main(["check"]) == 1
    assert f"0 changed, {len(few)} unknown to diffusers" in capsys.readouterr().out


# Rounding twins


WELL = "DDIM s7 timestep_spacing=leading"
ILL = "HeunDiscrete s7 beta_schedule=squaredcos_cap_v2"


def test_a_twin_is_near_its_setting_and_not_the_same():
    golden, twin, again = outcome(SETTINGS[WELL]), outcome(SETTINGS[WELL], 3), outcome(SETTINGS[WELL], 3)
    assert twin == again
    assert twin != golden
    assert compare(SETTINGS[WELL], twin, golden) is None


def test_tables_keep_what_is_equal_equal():
    values = torch.linspace(1, 2, 50).repeat(2)
    rounded = Twin(0).rounded(values)
    assert torch.equal(rounded[:50], rounded[50:])
    assert 0 < (rounded - values).abs().max() <= 2.0**-23


def test_limits_show_which_settings_are_ill_conditioned():
    assert measured_limit(SETTINGS[WELL], GOLDENS[WELL]) == FLOORS["float32"]
    assert measured_limit(SETTINGS[ILL], GOLDENS[ILL]) > ILL_CONDITIONED
    assert WELL not in LIMITS
    assert LIMITS[ILL] > ILL_CONDITIONED


def test_ill_conditioned_settings_need_only_be_finite():
    golden = GOLDENS[ILL]
    assert not isinstance(golden, str)
    moved = tuple(1.5 * value for value in golden)
    assert compare(SETTINGS[ILL], moved, golden, LIMITS[ILL]) is None
    assert compare(SETTINGS[ILL], (math.nan, *moved[1:]), golden, LIMITS[ILL])
    assert compare(SETTINGS[ILL], "ValueError: no", golden, LIMITS[ILL])


def test_no_order_is_measured_where_rounding_dominates():
    """SA-Solver of order 3 subtracts large polynomials in float32, so its error stops falling."""
    method = METHODS["SASolver predictor_order=3 corrector_order=3"]
    many = replace(method, steps=(12, 24, 192, 384))
    errors = [error(many, steps) for steps in many.steps]
    assert above_rounding(many, errors) == 2
    smooth = METHODS["DDIM prediction_type=sample"]
    assert above_rounding(smooth, [error(smooth, steps) for steps in smooth.steps]) == len(smooth.steps)


@pytest.mark.parametrize("class_name", CLASSES)
def test_noise_schedule(class_name):
    """The scheduler's own signal powers are those of the papers; each class keeps them in float32."""
    chosen = {
        json.dumps(dict(setting.options), sort_keys=True): setting.options
        for setting in SETTINGS.values()
        if setting.class_name == class_name and setting.dtype == "float32" and "beta_schedule" in setting.options
    }
    for options in list(chosen.values())[:: max(1, len(chosen) // 3)]:
        scheduler = build(class_name, options)
        own = scheduler.alphas_cumprod.to(torch.float64).numpy()
        assert np.abs(own - alphas_cumprod(scheduler.config)).max() < 2e-6


def test_a_difference_names_setting_value_golden_and_limit():
    golden = outcome(SOME)
    assert not isinstance(golden, str)
    moved = (golden[0] + 1e-3, *golden[1:])
    found = compare(SOME, moved, golden)
    assert found is not None
    assert found.setting == "DDIM s4 for this test"
    assert f"{moved[0]:.9g}, golden {golden[0]:.9g}, difference 0.001 (limit 3e-05); 1 of 8 numbers" in found.sentence


@pytest.mark.parametrize(
    ("now", "golden", "words"),
    [
        ((1.0,), "IndexError: list index out of range", "works now"),
        ("IndexError: list index out of range", (1.0,), "raises now"),
        ("IndexError: list index out of range", "KeyError: 3", "raises something else"),
        ((math.nan,), (1.0,), "nan, golden 1"),
        ((1.0,), (math.nan,), "1, golden nan"),
        ((math.inf,), (-math.inf,), "inf, golden -inf"),
    ],
)
def test_exceptions_and_values_that_are_not_finite_are_results(now, golden, words):
    found = compare(SOME, now, golden)
    assert found is not None
    assert words in found.sentence


@pytest.mark.parametrize("same", [(math.nan, 1.0), (math.inf, 2.0), "KeyError: 3"])
def test_equal_outcomes_have_no_difference(same):
    assert compare(SOME, same, same) is None


def test_float_rounding_passes_and_more_does_not():
    assert compare(SOME, (1.0 + 2.9e-5,), (1.0,)) is None
    assert compare(SOME, (1.0 + 3.1e-5,), (1.0,)) is not None
    assert compare(SOME, (1000.0 + 2.9e-2,), (1000.0,)) is None


def test_an_unknown_option_is_an_error():
    with pytest.raises(NotInDiffusers, match="DDIMScheduler does not know no_such_option"):
        build("DDIMScheduler", {"no_such_option": 1})
    with pytest.raises(NotInDiffusers, match="has no NoSuchScheduler"):
        build("NoSuchScheduler", {})
    with pytest.raises(NotInDiffusers, match="step does not know eta"):
        outcome(Setting("DDPMScheduler", VARIANCE_PRESERVING, 2, {}, {"eta": 1.0}))


def test_settings_are_products_with_readable_names():
    sweep = Sweep("DDIMScheduler", VARIANCE_PRESERVING, (4, 7), {}, [axis("thresholding", True)], [axis("eta", 0.5)])
    assert [setting.id for setting in sweep.settings()] == [
        f"DDIM {steps}{option}{eta}"
        for steps, option, eta in itertools.product(("s4", "s7"), ("", " thresholding"), ("", " eta=0.5"))
    ]


def test_goldens_are_read_and_written_back_with_the_same_bytes(tmp_path):
    path = tmp_path / "goldens.json"
    outcomes: dict[str, Outcome] = {
        "b": (1.0, -2.5e-7, math.inf),
        "a": "ValueError: nan is no number",
        "c": outcome(SOME),
    }
    store.write_goldens(outcomes, {"date": "today"}, path)
    back = store.read_goldens(path)
    assert back["a"] == outcomes["a"]
    assert back["b"] == outcomes["b"]
    assert np.float32(back["c"]).tolist() == list(outcomes["c"])
    before = path.read_bytes()
    store.write_goldens(dict(reversed(list(outcomes.items()))), {"date": "today"}, path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["goldens.json"]


def test_goldens_are_written_only_on_request(tmp_path, monkeypatch, capsys):
    path = tmp_path / "goldens.json"
    settings = {SOME.id: SOME}
    monkeypatch.setattr(command, "all_settings", lambda: settings)
    assert command.main(["check"], path) == 1
    assert not path.exists()
    assert command.main(["accept"], path) == 0
    assert f"{SOME.id}: new" in capsys.readouterr().out
    before = path.read_bytes()
    assert command.main(["check"], path) == 0
    assert command.main(["accept"], path) == 0
    assert path.read_bytes() == before
    step = diffusers.DDIMScheduler.step
    monkeypatch.setattr(
        diffusers.DDIMScheduler, "step", lambda self, output, *a, **k: step(self, output * 1.001, *a, **k)
    )
    capsys.readouterr()
    assert command.main(["check"], path) == 1
    assert "difference" in capsys.readouterr().out
    assert path.read_bytes() == before


def test_the_origin_of_the_goldens_is_known():
    origin = json.loads(store.GOLDENS.read_text(encoding="utf-8"))["origin"]
    assert origin["noise"] == NOISE.flatten().tolist()
    assert set(origin["libraries"]) == {"diffusers", "torch", "numpy", "scipy"}


# The closed form itself


def test_the_flow_solves_the_probability_flow_ode():
    """Against classical Runge-Kutta steps of dx/dsigma = (x - D(x)) / sigma (Karras et al. 2022, eq. 1)."""
    sample, sigmas = 5 * NOISE, np.geomspace(5, 0.05, 2001)
    for high, low in itertools.pairwise(sigmas):

        def slope(at: torch.Tensor, sigma: float) -> torch.Tensor:
            return (at - denoise(at, Level(1, sigma))) / sigma

        width, middle = low - high, (low + high) / 2
        first = slope(sample, high)
        second = slope(sample + width / 2 * first, middle)
        third = slope(sample + width / 2 * second, middle)
        fourth = slope(sample + width * third, low)
        sample = sample + width / 6 * (first + 2 * second + 2 * third + fourth)
    assert torch.allclose(sample, flow(5 * NOISE, Level(1, 5), Level(1, 0.05)), rtol=0, atol=1e-9)


def test_the_denoiser_is_the_expected_data():
    """Among many pairs of data and sample, no multiple of the denoiser or shift of it is nearer to the data."""
    generator = torch.Generator().manual_seed(0)
    level = Level(0.8, 0.6)
    count = 200_000
    data = MEAN + STD * torch.randn(count, 4, 1, 1, dtype=torch.float64, generator=generator)
    sample = level.alpha * data + level.sigma * torch.randn(data.shape, dtype=torch.float64, generator=generator)
    rest = data - denoise(sample, level)
    limit = 5 * float(rest.std()) / math.sqrt(count)
    assert rest.mean(dim=0).abs().max() < limit
    assert (rest * (sample - level.alpha * MEAN) / spread(level)).mean(dim=0).abs().max() < limit


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_predictions_are_of_the_same_data(kind):
    level = Level(0.8, 0.6)
    sample = NOISE
    answer = predict(sample, level, kind)
    data = {
        "epsilon": lambda: (sample - level.sigma * answer) / level.alpha,
        "v_prediction": lambda: level.alpha * sample - level.sigma * answer,
        "sample": lambda: answer,
        "flow_prediction": lambda: (sample - level.sigma * answer) / (level.alpha + level.sigma),
    }[kind]()
    assert torch.allclose(data, denoise(sample, level), rtol=0, atol=1e-12)


# The truth


def marked(names: dict[str, Any], found_by: Callable[[Any], tuple[str, ...]]) -> list[Any]:
    """Every name, those with a defect as strict expected failures; a defect of something else is an error."""
    reasons = {name: defect.reason for defect in DEFECTS.values() for name in found_by(defect)}
    assert set(reasons) <= set(names)
    return [
        pytest.param(name, marks=[pytest.mark.xfail(reason=reasons[name], strict=True, raises=AssertionError)])
        if name in reasons
        else name
        for name in names
    ]


def order_of(method: Method) -> float:
    """The measured order; where it falls short, only of step counts whose errors exceed rounding."""
    errors = [error(method, steps) for steps in method.steps]
    print(f"{method.id}: " + ", ".join(f"{size:.1e}" for size in errors))
    order = measured_order(errors, method.steps)
    count = len(errors) if order >= method.order - SLACK else above_rounding(method, errors)
    return order if count in (len(errors), 0, 1, 2) else measured_order(errors[:count], method.steps[:count])


@pytest.mark.parametrize("name", marked(METHODS, lambda defect: defect.methods))
def test_error_falls_at_the_promised_order(name):
    """The distance to the exact solution of the probability-flow ODE."""
    method = METHODS[name]
    order = order_of(method)
    assert order >= method.order - SLACK, f"order {order:.2f}, promised {method.order} ({method.source})"


@pytest.mark.parametrize("name", marked(SAMPLERS, lambda defect: defect.samplers))
def test_mean_and_variance_converge_to_those_of_the_data(name):
    """Exact moments of stochastic schedulers; with a perfect consistency model right in any number of steps."""
    sampler = SAMPLERS[name]
    counts = STEPS if sampler.order else (1, 2, 4, 8)
    errors = [propagate(sampler, steps).error for steps in counts]
    if sampler.order is None:
        assert max(errors) < 1e-5
        return
    order = order_of_moments(errors)
    assert order >= sampler.order - SLACK, f"order {order:.2f}, promised {sampler.order}, errors {errors}"


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_large_batch_has_the_moments_that_were_propagated(name):
    """Within 5 standard errors: one false alarm in 10**6 numbers."""
    count = 20_000
    sampler = SAMPLERS[name]
    exact = propagate(sampler, 6)
    drawn = draw_batch(sampler, 6, count)
    mean_limit, variance_limit = statistical_limits(exact, count)
    assert bool(((drawn.mean - exact.mean).abs() <= mean_limit).all())
    assert bool(((drawn.variance - exact.variance).abs() <= variance_limit).all())


# Known defects


@pytest.mark.parametrize("name", [name for name, defect in DEFECTS.items() if defect.settings])
def test_a_defect_is_still_there(name, request):
    """Strict: when a release fixes all settings of a defect, this test fails, and the defect leaves the list."""
    defect = DEFECTS[name]
    request.applymarker(pytest.mark.xfail(reason=defect.reason, strict=True, raises=AssertionError))
    covered = [setting for setting in SETTINGS.values() if defect.covers(setting.id)]
    if not covered:
        raise LookupError(f"no setting shows '{name}'")
    outcomes = [outcome(setting) for setting in covered]
    assert any(not isinstance(one, str) and all(map(math.isfinite, one)) for one in outcomes)


def test_what_raises_or_is_not_finite_is_a_known_defect():
    broken = {name for name in GOLDENS if not is_finite(name)}
    covered = [name for name in GOLDENS for defect in DEFECTS.values() if defect.covers(name)]
    assert sorted(covered) == sorted(broken)


# Broken on purpose

Break = Callable[[pytest.MonkeyPatch], None]


def after(class_name: str, method: str, change: Callable[[Any], None]) -> Break:
    """Changes the scheduler after each call of one of its methods."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        owner = getattr(diffusers, class_name)
        real = getattr(owner, method)

        def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
            answer = real(self, *args, **kwargs)
            change(self)
            return answer

        broken.__wrapped__ = real  # type: ignore[attr-defined]
        monkeypatch.setattr(owner, method, broken)

    return apply


def instead(class_name: str, method: str, replacement: Callable[..., Any]) -> Break:
    """Replaces a method by ``replacement(real, self, ...)``."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        owner = getattr(diffusers, class_name)
        real = getattr(owner, method)

        def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
            return replacement(real, self, *args, **kwargs)

        broken.__wrapped__ = real  # type: ignore[attr-defined]
        monkeypatch.setattr(owner, method, broken)

    return apply


def _repeat_last_sigma(scheduler: Any) -> None:
    scheduler.sigmas[-1] = scheduler.sigmas[-2]


def _one_timestep_late(scheduler: Any) -> None:
    scheduler.timesteps = (scheduler.timesteps - 1).clamp(min=0)


def _other_betas(scheduler: Any) -> None:
    scheduler.alphas_cumprod = scheduler.alphas_cumprod**1.001


def _sigmas_of_half_precision(scheduler: Any) -> None:
    scheduler.sigmas = scheduler.sigmas.to(torch.bfloat16).to(torch.float32)


def _forget_history(scheduler: Any) -> None:
    scheduler.ets = scheduler.ets[-1:]


def _scaled_output(real: Any, self: Any, output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    return real(self, output * 1.0001, *args, **kwargs)


def _unscaled_input(real: Any, self: Any, sample: torch.Tensor, *args: Any) -> torch.Tensor:
    real(self, sample, *args)
    return sample


def _first_order(_: Any, self: Any, outputs: list[torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    return self.dpm_solver_first_order_update(outputs[-1], *args, **kwargs)


def _swapped_history(real: Any, self: Any, outputs: list[torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    return real(self, [*outputs[:-2], outputs[-1], 2 * outputs[-1] - outputs[-2]][-len(outputs) :], *args, **kwargs)


def _uncorrected(_: Any, self: Any, **kwargs: Any) -> torch.Tensor:
    return kwargs["this_sample"]


def _backwards(real: Any, self: Any, output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    return real(self, -output, *args, **kwargs)


def _own_noise(real: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    return real(self, *args, **{**kwargs, "generator": torch.Generator().manual_seed(1)})


DPM, UNIPC, EULER = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler"
HEUN, DDIM, DDPM, PNDM = "HeunDiscreteScheduler", "DDIMScheduler", "DDPMScheduler", "PNDMScheduler"
BREAKS: dict[str, tuple[str, Break, str | None]] = {
    "last sigma repeated": (DPM, after(DPM, "set_timesteps", _repeat_last_sigma), None),
    "second order dropped": (
        DPM,
        instead(DPM, "multistep_dpm_solver_second_order_update", _first_order),
        "DPMSolverMultistep timestep_spacing=linspace",
    ),
    "sign of the correction": (
        DPM,
        instead(DPM, "multistep_dpm_solver_second_order_update", _swapped_history),
        "DPMSolverMultistep timestep_spacing=linspace",
    ),
    "corrector dropped": (
        UNIPC,
        instead(UNIPC, "multistep_uni_c_bh_update", _uncorrected),
        "UniPCMultistep timestep_spacing=linspace",
    ),
    "coefficient 0.01 % off": (UNIPC, instead(UNIPC, "step", _scaled_output), None),
    "sigmas of bfloat16": (EULER, after(EULER, "set_timesteps", _sigmas_of_half_precision), None),
    "input not scaled": (
        EULER,
        instead(EULER, "scale_model_input", _unscaled_input),
        "EulerDiscrete timestep_spacing=linspace",
    ),
    "sign of the output": (HEUN, instead(HEUN, "step", _backwards), "HeunDiscrete timestep_spacing=linspace"),
    "timesteps one late": (DDIM, after(DDIM, "set_timesteps", _one_timestep_late), None),
    "signal power 0.1 % off": (DDPM, after(DDPM, "__init__", _other_betas), None),
    "noise of another generator": (DDPM, instead(DDPM, "step", _own_noise), None),
    "history cut to two": (PNDM, after(PNDM, "step", _forget_history), None),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_scheduler_is_red(name, monkeypatch):
    """A fault moves goldens, and where it costs an order, the order is found to be too low."""
    class_name, apply, method = BREAKS[name]
    apply(monkeypatch)
    assert differences(class_name)
    if method:
        assert not order_of(METHODS[method]) >= METHODS[method].order - SLACK


def test_the_smooth_schedule_is_smooth():
    ratios = np.log((1 - (signal := np.cumprod(1 - np.array(SMOOTH)))) / signal)
    assert np.ptp(np.diff(ratios)) < 1e-9
