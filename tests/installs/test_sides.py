"""What a side may be, and what is refused."""

from pathlib import Path

import pytest

from bench.installs.sides import SideError, parse_side
from tests.installs.helpers import write_checkout, write_wheel


def test_current_is_the_running_environment(tmp_path):
    assert parse_side("current", tmp_path).is_current
    assert parse_side(" current ", tmp_path).is_current


@pytest.mark.parametrize(
    ("text", "requirements", "newest"),
    [
        ("diffusers==0.42.1", ("diffusers==0.42.1",), ()),
        ("diffusers==0.42.1 transformers==5.20.0", ("diffusers==0.42.1", "transformers==5.20.0"), ()),
        ("diffusers >= 0.40 transformers", ("diffusers>=0.40", "transformers"), ("transformers",)),
        ("diffusers transformers", ("diffusers", "transformers"), ("diffusers", "transformers")),
        ("Diffusers[torch]", ("Diffusers[torch]",), ("diffusers",)),
        ("diffusers~=0.40.0", ("diffusers~=0.40.0",), ()),
        ('torch==2.9; python_version < "3.12"', ('torch==2.9; python_version < "3.12"',), ()),
        ("""'torch==2.9; os_name == "nt"' numpy<3""", ('torch==2.9; os_name == "nt"', "numpy<3"), ()),
        ("git+https://example.org/a/b@main", ("git+https://example.org/a/b@main",), ()),
        ("b @ git+https://example.org/a/b@v1 c==1", ("b@ git+https://example.org/a/b@v1", "c==1"), ()),
    ],
)
def test_spaces_separate_requirements_and_bare_names_mean_newest(tmp_path, text, requirements, newest):
    side = parse_side(text, tmp_path)
    assert tuple(one.replace(" @ ", "@ ") for one in side.requirements) == requirements
    assert side.newest == newest
    assert not side.is_current


def test_paths_start_at_the_given_folder(tmp_path):
    write_checkout(tmp_path / "a folder" / "easel")
    write_wheel(tmp_path, "brush", "1.0")
    (tmp_path / "wanted.txt").write_text("paint\n")
    side = parse_side("-r wanted.txt brush-1.0-py3-none-any.whl './a folder/easel[oil]'", tmp_path)
    assert side.files == (tmp_path / "wanted.txt",)
    wheel, checkout = tmp_path / "brush-1.0-py3-none-any.whl", tmp_path / "a folder" / "easel"
    assert side.requirements == (str(wheel), f"{checkout}[oil]")
    assert parse_side("./a folder/easel", tmp_path).requirements == (str(checkout),)
    assert side.newest == ()


def test_a_virtual_environment_is_known_by_its_configuration(tmp_path):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert parse_side("env", tmp_path).environment == tmp_path / "env"
    assert parse_side(str(tmp_path / "env"), Path("/")).environment == tmp_path / "env"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("./nowhere", "does not exist"),
        ("nowhere-1.0-py3-none-any.whl", "does not exist"),
        ("./empty", "neither a virtual environment (pyvenv.cfg) nor a checkout"),
        ("./notes.txt", "is not a wheel file"),
        ("-r", "needs a requirements file"),
        ("-r nowhere.txt", "needs a requirements file"),
        ("-e ./empty", "the option -e is not supported"),
        ("diffusers=0.42.1", "'diffusers=0.42.1' is neither a requirement nor"),
        ("diffusers==", "'diffusers==' is neither a requirement nor"),
        ("diffusers 'torch", "No closing quotation"),
    ],
)
def test_what_is_no_side_is_refused_with_what_is_allowed(tmp_path, text, reason):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SideError) as refused:
        parse_side(text, tmp_path)
    message = str(refused.value)
    assert reason in message
    assert "allowed are 'current'" in message
    assert not text.strip() or text in message
    assert "\n" not in message
