"""A side with clean copies in place of the checkouts that it names."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.installs.checkouts import read_checkout
from bench.installs.sides import Side, is_path
from bench.installs.sources import content_of, local_path
from bench.installs.uv import EnvironmentFailed

# A folder, with extras and a marker: ./easel[fast]; python_version > "3.10"
_FOLDER = re.compile(r"(?P<place>[^;]+?)(?P<after>(\[[\w\s.,-]*\])?\s*(;.*)?)")
_NAMED = re.compile(r"(?P<name>[\w.-]+\s*(\[[^\]]*\])?\s*@\s*)(?P<folder>.+)")
_FILE_OPTION = re.compile(r"(?P<option>-r|-c|--requirement|--constraint)[\s=]*(?P<file>.+)")
_EDITABLE = re.compile(r"(-e|--editable)[\s=]+")
_COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass
class Copies:
    """The copies of the checkouts of one side.

    Attributes:
        side: which names the copies.
        folders: the copy of each checkout.
    """

    side: Side
    _temporary: Path
    folders: dict[Path, Path] = field(default_factory=dict)
    _roots: dict[Path, Path] = field(default_factory=dict)
    _contents: dict[Path, str] = field(default_factory=dict)

    def copy_of(self, folder: Path) -> Path:
        checkout = read_checkout(folder)
        if checkout.folder not in self.folders:
            root = self._temporary / str(len(self.folders)) / "checkout"
            self.folders[checkout.folder] = checkout.copy_to(root)
            self._roots[root] = checkout.root
            self._contents[checkout.folder] = checkout.content(root)
        return self.folders[checkout.folder]

    def original(self, text: str) -> str:
        """What uv printed, with the checkouts themselves in place of their copies."""
        for root, original in self._roots.items():
            text = text.replace(root.as_uri(), original.as_uri()).replace(str(root), str(original))
        return text

    def content_of(self, source: str) -> str:
        """What a source, as ``original`` names it, is now; of a checkout, what was copied."""
        path = local_path(source)
        return f"{source} {self._contents[path]}" if path in self._contents else content_of(source)

    def requirement(self, text: str) -> str:
        """A requirement; if it names a checkout, with its copy."""
        named = _NAMED.fullmatch(text)
        name, rest = (named["name"], named["folder"]) if named else ("", text)
        match = _FOLDER.fullmatch(rest)
        if not match:
            return text
        place = match["place"].strip()
        folder = local_path(place) or (Path(place).expanduser().absolute() if is_path(place) else None)
        if not folder or not folder.is_dir():
            return text
        copy = self.copy_of(folder)
        return f"{name}{copy.as_uri() if name else copy}{match['after']}"

    def file(self, path: Path) -> Path:
        """A requirements file; if it names a checkout, a copy of the file that names the copy."""
        written = path.read_text(encoding="utf-8", errors="surrogateescape").replace("\\\n", " ")
        text = "".join(f"{self._line(line, path.parent)}\n" for line in written.splitlines())
        if str(self._temporary) not in text:
            return path
        copy = Path(tempfile.mkdtemp(dir=self._temporary)) / path.name
        copy.write_text(text, encoding="utf-8", errors="surrogateescape")
        return copy

    def _line(self, line: str, folder: Path) -> str:
        text = _COMMENT.sub("", line).strip()
        if option := _FILE_OPTION.fullmatch(text):
            path = folder / option["file"].strip()
            if not path.is_file():
                return line
            return f"{option['option']} {self.file(path)}"
        bare = _EDITABLE.sub("", text)
        copied = self.requirement(bare)
        return line if copied == bare else copied


@contextlib.contextmanager
def clean_copies(side: Side) -> Iterator[Copies]:
    """The side with a copy of each checkout that it names, also in its requirements files; removed with the block.

    Raises:
        EnvironmentFailed: a checkout cannot be copied; one raised within the block names the checkouts themselves.
    """
    with tempfile.TemporaryDirectory(prefix="checkouts-") as temporary:
        copies = Copies(side, Path(os.path.realpath(temporary)))
        try:
            copies.side = replace(
                side,
                requirements=tuple(map(copies.requirement, side.requirements)),
                files=tuple(map(copies.file, side.files)),
            )
        except OSError as error:
            raise EnvironmentFailed(
                f"'{side.text}': cannot be copied to {temporary} ({error.strerror or error})."
            ) from None
        try:
            yield copies
        except EnvironmentFailed as error:
            raise EnvironmentFailed(copies.original(str(error))) from None
