"""The folder of one run: records, grids, environments. Created when something is first written to it."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from bench.errors import BenchError
from bench.files import append_line, write_atomically
from bench.record.record import Record

RECORDS = "records.jsonl"
ENVIRONMENTS = "environments.json"
LATEST = "latest"


class FolderError(BenchError):
    """A run's folder cannot be created; one sentence that names it."""


def new_run_name() -> str:
    """Time and a short random id, so that names sort by time and runs that start at the same time differ."""
    return f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def picture_path(folder: Path, case_id: str, role: str = "") -> Path:
    """``grids/<case>.png``, or ``grids/<case>.<role>.png``, in the folder of a run."""
    return folder / "grids" / f"{case_id}{'.' if role else ''}{role}.png"


@dataclass(frozen=True)
class RunFolder:
    """``results/<time>-<short id>/``."""

    root: Path
    name: str

    @property
    def path(self) -> Path:
        return self.root / self.name

    def make(self) -> Path:
        """Creates the folder if it is missing, and returns its path.

        Raises:
            FolderError: it cannot be created.
        """
        if not self.path.is_dir():
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._not_created(error.errno) from None
            self._point_latest()
        return self.path

    def check_place(self) -> None:
        """Creates nothing: a run may turn out to have no cases.

        Raises:
            FolderError: the folder cannot be created, as far as can be seen without trying.
        """
        place = next(parent for parent in self.path.absolute().parents if parent.exists())
        if not place.is_dir():
            raise self._not_created(errno.ENOTDIR)
        if not os.access(place, os.W_OK | os.X_OK):
            raise self._not_created(errno.EACCES)

    def _not_created(self, code: int | None) -> FolderError:
        reason = os.strerror(code or 0)
        return FolderError(
            f"{self.root}: cannot create the run's folder here ({reason}); "
            "give a folder that you can write to with --results."
        )

    def _point_latest(self) -> None:
        beside = self.root / f".{LATEST}-{self.name}"
        with contextlib.suppress(OSError):  # no symbolic links on this file system: the path is printed anyway
            beside.symlink_to(self.name, target_is_directory=True)
            try:
                os.replace(beside, self.root / LATEST)
            finally:
                beside.unlink(missing_ok=True)

    def append(self, record: Record) -> None:
        append_line(self.make() / RECORDS, record.to_line())

    def note_environment(self, key: str, environment: dict[str, Any]) -> None:
        path = self.make() / ENVIRONMENTS
        known = json.loads(path.read_text()) if path.is_file() else {}
        if key not in known:
            write_atomically(path, json.dumps(known | {key: environment}, indent=2) + "\n")

    def save_picture(self, case_id: str, image: Image.Image, role: str = "") -> Path:
        path = picture_path(self.make(), case_id, role)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        return path
