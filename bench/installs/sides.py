"""The sides of an upgrade: what ``--baseline`` and ``--candidate`` ask for."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from bench.errors import BenchError

CURRENT = "current"
ALLOWED = (
    f"allowed are '{CURRENT}', the folder of a virtual environment, or requirements (diffusers==0.42.1, or diffusers "
    "for its newest release), wheel files, checkouts, git+https://…@ref and -r FILE, separated by spaces"
)
_CONTINUES = re.compile(r"@$|[<>=!]|~=|;")
_CONTINUED = re.compile(r"(@|[<>=!,;])$")
_EXTRAS = re.compile(r"(?P<path>.+?)(?P<extras>\[[\w\s.,-]*\])?")


class SideError(BenchError):
    """A side that makes no sense; one sentence that names it and says what is allowed."""


@dataclass(frozen=True)
class Side:
    """The environment that a side asks for: the current one, an existing one, or the current one with changes.

    Attributes:
        text: as the user wrote it.
        environment: folder of an existing virtual environment.
        requirements: to install, with absolute paths.
        files: requirements files to install.
        newest: names of libraries to upgrade to their newest release.
    """

    text: str
    environment: Path | None = None
    requirements: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    newest: tuple[str, ...] = ()

    @property
    def is_current(self) -> bool:
        return not (self.environment or self.requirements or self.files)


def parse_side(text: str, folder: Path) -> Side:
    """What a side asks for.

    Args:
        text: the option's value.
        folder: where relative paths start.

    Raises:
        SideError: it is empty, names a file that does not exist, or is not a requirement.
    """
    asked = text.strip()
    if not asked:
        raise SideError(f"a side is empty; {ALLOWED}.")
    if asked == CURRENT:
        return Side(text)
    whole = _absolute(asked, folder)
    if (whole / "pyvenv.cfg").is_file():
        return Side(text, environment=whole)
    requirements: list[str] = []
    files: list[Path] = []
    newest: list[str] = []
    words = iter([str(whole)] if is_path(asked) and whole.exists() else _words(asked))
    for word in words:
        if word in ("-r", "--requirement"):
            files.append(_requirements_file(next(words, ""), text, folder))
        elif word.startswith("-r") and len(word) > 2:
            files.append(_requirements_file(word[2:], text, folder))
        else:
            requirement = _requirement(word, text, folder)
            requirements.append(requirement)
            newest += _asks_for_newest(requirement)
    return Side(text, requirements=tuple(requirements), files=tuple(files), newest=tuple(newest))


def _absolute(path: str, folder: Path) -> Path:
    return (folder / Path(path).expanduser()).absolute()


def is_path(word: str) -> bool:
    return word.endswith(".whl") or word.startswith((".", "~")) or ("/" in word and not re.search(r"\s@|://", word))


def _words(text: str) -> list[str]:
    """The requirements of a side: separated by spaces, but ``name @ address`` and ``name >= 1`` are one each."""
    try:
        return [str(Requirement(text))]
    except InvalidRequirement:
        pass
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SideError(f"'{text}' cannot be read ({error}); {ALLOWED}.") from None
    joined: list[str] = []
    for word in words:
        if joined and (_CONTINUES.match(word) or _CONTINUED.search(joined[-1])):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return joined


def _requirements_file(name: str, text: str, folder: Path) -> Path:
    path = _absolute(name, folder)
    if not name or not path.is_file():
        raise SideError(f"'{text}': -r needs a requirements file, and '{name}' is not a file; {ALLOWED}.")
    return path


def _requirement(word: str, text: str, folder: Path) -> str:
    if word.startswith("git+"):
        return word
    if word.startswith("-"):
        raise SideError(f"'{text}': the option {word} is not supported; {ALLOWED}.")
    if is_path(word):
        return _local(word, text, folder)
    try:
        return str(Requirement(word))
    except InvalidRequirement:
        raise SideError(f"'{text}': '{word}' is neither a requirement nor a file or folder; {ALLOWED}.") from None


def _local(word: str, text: str, folder: Path) -> str:
    match = _EXTRAS.fullmatch(word)
    assert match
    path, extras = _absolute(match["path"], folder), match["extras"] or ""
    if path.is_dir():
        if not any((path / name).is_file() for name in ("pyproject.toml", "setup.py")):
            raise SideError(
                f"'{text}': {path} is neither a virtual environment (pyvenv.cfg) nor a checkout (pyproject.toml or "
                f"setup.py); {ALLOWED}."
            )
    elif not path.is_file():
        raise SideError(f"'{text}': {path} does not exist; {ALLOWED}.")
    else:
        try:
            parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            raise SideError(f"'{text}': {path} is not a wheel file; {ALLOWED}.") from None
    return f"{path}{extras}"


def _asks_for_newest(requirement: str) -> list[str]:
    """The name, if the requirement is only a name."""
    try:
        parsed = Requirement(requirement)
    except InvalidRequirement:
        return []
    return [] if parsed.specifier or parsed.url else [canonicalize_name(parsed.name)]
