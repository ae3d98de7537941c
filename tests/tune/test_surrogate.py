"""What is expected of untried settings."""

from __future__ import annotations

import numpy as np

from bench.tune.surrogate import Surrogate, denoiser_calls, features_of
from tests.tune.made_up import made_up_result, made_up_space

SPACE = made_up_space()
RESULTS = {name: made_up_result(case) for name, case in SPACE.cases.items()}


def test_a_feature_for_each_value_that_varies_and_none_for_what_does_not():
    features = features_of(list(SPACE.cases.values()))
    # Calls and steps, three schedulers, two dtypes, one speed setting.
    assert features.shape == (len(SPACE.cases), 2 + 3 + 2 + 1)
    assert np.isfinite(features).all()


def test_second_order_schedulers_call_the_denoiser_twice():
    space = made_up_space(scheduler=("heun", "ddim"))
    calls = {case.settings.scheduler: denoiser_calls(case) for case in space.cases.values() if case.settings.steps == 8}
    assert calls == {"heun": 15, "ddim": 8}


def test_untried_settings_are_expected_near_the_truth():
    names = list(SPACE.cases)
    some = names[::3]
    known = {name: (RESULTS[name].seconds, RESULTS[name].quality) for name in some}
    log_seconds, quality = Surrogate(SPACE.cases).draws(known, 64, np.random.default_rng(0))
    assert log_seconds.shape == quality.shape == (64, len(names))
    seconds_off = np.abs(np.median(log_seconds, axis=0) - [np.log(RESULTS[name].seconds) for name in names])
    quality_off = np.abs(np.median(quality, axis=0) - [RESULTS[name].quality for name in names])
    assert np.median(seconds_off) < 0.05
    assert np.median(quality_off) < 0.03


def test_what_is_known_is_drawn_with_little_spread():
    names = list(SPACE.cases)[::3]
    known = {name: (RESULTS[name].seconds, RESULTS[name].quality) for name in names}
    log_seconds, _ = Surrogate(SPACE.cases).draws(known, 64, np.random.default_rng(0))
    columns = [list(SPACE.cases).index(name) for name in names]
    assert log_seconds[:, columns].std(axis=0).max() < 0.1
