"""The journal of an upgrade check: kept line by line, continued, or refused."""

from __future__ import annotations

import pytest

from bench.errors import UsageError
from bench.suite.schedulers import DDPM
from bench.upgrade.journal import Compared, Journal, new_journal, read_journal
from tests.upgrade import made_up
from tests.upgrade.starts import CALL, call, start

COMPARED = Compared(
    libraries=({"torch": "2.9"}, {"torch": "2.10"}),
    origins=({}, {}),
    device="cpu",
    device_name="a processor",
    threads=1,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "upgrade.jsonl"


def test_what_was_found_is_there_after_an_interruption(path):
    journal = new_journal(path, COMPARED)
    journal.add_case(made_up.case("m/ddim-s5"))
    journal.add_start(start({"m/ddim-s5": [call(CALL)]}))
    again = read_journal(path, COMPARED)
    assert (again.cases, again.starts) == (journal.cases, journal.starts)


def test_a_line_that_a_crash_cut_off_costs_only_itself(path):
    journal = new_journal(path, COMPARED)
    journal.add_case(made_up.case("m/ddim-s5"))
    with path.open("a") as file:
        file.write('{"case": {"case": "m/dd')
    again = read_journal(path, COMPARED)
    assert set(again.cases) == {"m/ddim-s5"}
    again.add_case(made_up.case("m/ddim-s6"))
    assert set(read_journal(path, COMPARED).cases) == {"m/ddim-s5", "m/ddim-s6"}


def test_a_case_with_other_settings_is_not_known(tiny_case):
    case = tiny_case(DDPM)
    found = made_up.case("x/x-s1").model_copy(
        update={"case": case.id, "settings": case.settings.described() | {"slow": False}}
    )
    journal = Journal(cases={case.id: found})
    assert journal.found(case) == found
    other = case.model_copy(update={"settings": case.settings.model_copy(update={"options": {"clip_sample": False}})})
    assert other.id == case.id or journal.found(other) is None
    journal.cases[other.id] = found
    assert journal.found(other) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"libraries": ({"torch": "2.9"}, {"torch": "2.11"})}, "torch of the candidate was 2.10 and is 2.11"),
        ({"origins": ({"diffusers": "git abc"}, {})}, "diffusers of the baseline was None and is git abc"),
        ({"threads": 2}, "threads was 1 and is 2"),
    ],
)
def test_another_check_is_not_continued(path, change, why):
    new_journal(path, COMPARED)
    with pytest.raises(UsageError) as caught:
        read_journal(path, COMPARED.model_copy(update=change))
    assert why in str(caught.value)
    assert "leave out --resume" in str(caught.value)


def test_a_journal_that_is_missing_or_damaged_is_named(path):
    with pytest.raises(UsageError, match=r"upgrade\.jsonl cannot be read \(No such file"):
        read_journal(path, COMPARED)
    path.write_text('{"check": 1}\n')
    with pytest.raises(UsageError, match=r"upgrade\.jsonl is damaged"):
        read_journal(path, COMPARED)
