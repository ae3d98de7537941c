"""Ranges of releases, and the releases of a library that an index has."""

import pytest
from packaging.version import Version

from bench.installs.releases import ReleasesError, parse_range, releases_between
from tests.installs.helpers import FINALS, release_index


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("0.34.0..0.42.1", "0.34.0", "0.42.1"), ("4.57..5.0", "4.57", "5.0"), ("1.0rc1..1.0", "1.0rc1", "1.0")],
)
def test_a_range_is_read(text, first, last):
    assert parse_range(text) == (Version(first), Version(last))


@pytest.mark.parametrize(
    "text", ["0.34.0", "0.34.0-0.42.1", "0.34.0..", "..", "a..b", "0.34...0.42", "0.42.1..0.34.0", "1..1"]
)
def test_a_malformed_range_is_one_sentence_with_an_example(text):
    with pytest.raises(ReleasesError, match=r"0\.34\.0\.\.0\.42\.1\.$") as raised:
        parse_range(text)
    assert f"'{text}'" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="session")
def uv_variables(tmp_path_factory):
    return release_index(tmp_path_factory)


def between(text, name="paint", **options):
    return [str(one) for one in releases_between(name, *parse_range(text), **options)]


def test_the_newest_patch_of_each_minor_version_and_both_ends():
    assert between("1.0.0..2.0.1") == ["1.0.0", "1.0.1", "1.1.2", "1.2.0", "1.10.0", "2.0.1"]
    assert between("1.1.0..2.0.0") == ["1.1.0", "1.1.2", "1.2.0", "1.10.0", "2.0.0"]
    assert between("1.1.1..1.1.2") == ["1.1.1", "1.1.2"]


def test_all_releases_but_no_pre_releases():
    assert between("1.0.0..3", every=True) == list(FINALS)
    assert between("1.1.1..1.2.0rc1", every=True) == ["1.1.1", "1.1.2"]


def test_ends_need_not_be_releases():
    assert between("0.5..1.1.9") == ["1.0.0", "1.0.1", "1.1.2"]
    assert between("1.1.9..1.9.9") == ["1.2.0"]


def test_an_unknown_library_and_an_empty_range_are_one_sentence():
    with pytest.raises(ReleasesError, match="has no library 'pigment'; correct the name"):
        between("1.0..2.0", "pigment")
    with pytest.raises(ReleasesError, match=r"paint has no final release from 7\.0 to 8\.0 .* give another range"):
        between("7.0..8.0")
    with pytest.raises(ReleasesError, match="'pai nt' is not the name"):
        between("1.0..2.0", "pai nt")


def test_an_index_that_does_not_answer_is_one_sentence(monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("UV_FIND_LINKS")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(ReleasesError, match=r"^the releases of paint cannot be listed: .*") as raised:
        between("1.0..2.0")
    assert "\n" not in str(raised.value)
