"""Wheel files, checkouts and git references are known by their content."""

from bench.installs.installed import changes
from tests.installs.helpers import ask, commit_checkout, git, run_in, write_checkout, write_wheel


def test_a_wheel_file_is_installed_and_known_by_its_content(base, cache, tmp_path):
    write_wheel(tmp_path, "frame", "7.0", body="wood = 'oak'\n")
    oak = ask("./frame-7.0-py3-none-any.whl", cache, base)
    assert oak.libraries["frame"] == "7.0"
    write_wheel(tmp_path, "frame", "7.0", body="wood = 'ash'\n")
    ash = ask("./frame-7.0-py3-none-any.whl", cache, base)
    assert ash.folder != oak.folder
    assert run_in(ash, "import frame; print(frame.wood)") == "ash"
    (change,) = changes(oak, ash)
    assert str(change).startswith("frame 7.0 (file ")


def test_only_a_changed_checkout_gets_a_new_environment(base, cache, tmp_path):
    checkout = write_checkout(tmp_path / "easel")
    wood = ask("./easel", cache, base)
    assert ask("./easel", cache, base).folder == wood.folder
    write_checkout(checkout, "made_of = 'steel'\n")
    steel = ask("./easel", cache, base)
    assert steel.folder != wood.folder
    assert run_in(wood, "import easel; print(easel.made_of)") == "wood"
    assert run_in(steel, "import easel; print(easel.made_of)") == "steel"


def test_uncommitted_content_counts_and_ignored_content_does_not(base, cache, tmp_path):
    checkout = tmp_path / "easel"
    commit_checkout(checkout, "made_of = 'wood'\n", "one")
    (checkout / ".git" / "info" / "exclude").write_text("scratch.txt\n")
    first = ask("./easel", cache, base)
    (checkout / "scratch.txt").write_text("ignored")
    (checkout / "build").mkdir()
    (checkout / "build" / "left.py").write_text("built")
    assert ask("./easel", cache, base).folder == first.folder
    (checkout / "untracked.py").write_text("new")
    second = ask("./easel", cache, base)
    assert second.folder != first.folder
    (checkout / "source.py").write_text("made_of = 'steel'\n")
    assert ask("./easel", cache, base).folder not in (first.folder, second.folder)


def test_a_checkout_in_a_requirements_file_is_built_again(base, cache, tmp_path):
    checkout = write_checkout(tmp_path / "easel")
    (tmp_path / "wanted.txt").write_text(f"{checkout}\n")
    ask("-r wanted.txt", cache, base)
    (checkout / "source.py").write_text("made_of = 'steel'\n")
    assert run_in(ask("-r wanted.txt", cache, base), "import easel; print(easel.made_of)") == "steel"


def test_a_git_reference_is_the_commit_that_it_names(base, cache, tmp_path):
    checkout = tmp_path / "easel"
    commit = commit_checkout(checkout, "made_of = 'wood'\n", "one")
    commit_checkout(checkout, "made_of = 'steel'\n", "two")
    one = ask(f"git+file://{checkout}@one", cache, base)
    two = ask(f"easel @ git+file://{checkout}@two", cache, base)
    assert run_in(one, "import easel; print(easel.made_of)") == "wood"
    assert run_in(two, "import easel; print(easel.made_of)") == "steel"
    assert one.version("easel") == f"1.0 (git {commit[:9]})"
    git(checkout, "tag", "-f", "one", "two")
    assert ask(f"git+file://{checkout}@one", cache, base).folder == two.folder
