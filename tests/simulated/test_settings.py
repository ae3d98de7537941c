"""What can be chosen, and how."""

import pytest

from bench.simulated.settings import VARIABLE, Settings, SimulationError, asked_for, settings_from_environment


def _from(value):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(VARIABLE, value)
        return asked_for(), settings_from_environment()


@pytest.mark.parametrize("value", ["", "0"])
def test_nothing_is_asked_for(value):
    assert _from(value) == (False, Settings())


def test_one_asks_for_the_defaults():
    assert _from("1") == (True, Settings(devices=2, memory_bytes=16 << 30, latency_s=0.0))


def test_values_have_names():
    assert _from("devices=3,latency_s=0.5,memory_bytes=100") == (True, Settings(3, 100, 0.5))


@pytest.mark.parametrize("value", ["2", "devices=two", "speed=1", "devices=1,,", "devices=0", "latency_s=-1"])
def test_other_values_are_refused_in_a_sentence(value):
    with pytest.raises(SimulationError, match=r"\.$"):
        _from(value)
