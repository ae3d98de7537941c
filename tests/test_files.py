"""Files are never half written: a crash leaves the old file and complete lines."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.files import append_line, read_lines, write_atomically, write_together


class Crash(BaseException):
    """Stands for the end of a process at any moment, as by a signal."""


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``crash("fsync")`` makes the next call of this function of ``os`` the last thing that happens."""

    def arrange(name: str) -> None:
        def crashed(*_arguments: Any) -> None:
            raise Crash

        monkeypatch.setattr(os, name, crashed)

    return arrange


def write_one(path: Path, content: bytes) -> None:
    write_atomically(path, content)


def write_two(path: Path, content: bytes) -> None:
    write_together({path: content, path.with_name("beside"): content})


WRITES = pytest.mark.parametrize("write", [write_one, write_two])


@WRITES
@pytest.mark.parametrize("moment", ["fsync", "chmod", "replace"])
def test_a_crash_leaves_the_old_file_and_nothing_else(
    write: Callable[[Path, bytes], None], moment: str, crash: Any, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    crash(moment)
    with pytest.raises(Crash):
        write(path, b"new")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"old")]


@WRITES
def test_a_file_is_replaced_and_never_written_into(write: Callable[[Path, bytes], None], tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    (tmp_path / "reader").hardlink_to(path)
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "reader").read_bytes() == b"old"
    assert path.stat().st_mode & 0o777 == 0o644
    assert {one.name for one in path.parent.iterdir()} <= {"file", "beside"}


def test_text_is_written_in_utf_8_as_it_is(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "süß\r\nend\n")
    assert (tmp_path / "file").read_bytes() == "süß\r\nend\n".encode()


def test_a_folder_that_was_removed_is_not_created_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "gone" / "file", "new")
    assert list(tmp_path.iterdir()) == []


def test_lines_come_back_in_order_without_newlines(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, '{"number": 1}')
    append_line(path, '{"number": 2}\n')
    assert path.read_text() == '{"number": 1}\n{"number": 2}\n'
    assert read_lines(path) == [b'{"number": 1}', b'{"number": 2}']


LINE = '{"name": "süß", "numbers": [1, 2]}'


@pytest.mark.parametrize("length", range(1, len(LINE.encode())))
def test_a_line_that_was_cut_off_is_ignored_and_removed(length: int, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "{}")
    with path.open("ab") as file:
        file.write(LINE.encode()[:length])
    assert read_lines(path) == [b"{}"]
    append_line(path, LINE)
    assert read_lines(path) == [b"{}", LINE.encode()]


@pytest.mark.parametrize("before", ["", "{}\n"])
def test_a_last_line_that_only_lacks_its_newline_counts(before: str, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text(before + LINE, encoding="utf-8")
    assert read_lines(path)[-1] == LINE.encode()
    append_line(path, "[]")
    assert path.read_text(encoding="utf-8") == f"{before}{LINE}\n[]\n"


def test_a_damaged_line_within_the_file_is_left_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"num\n{}\n\n')
    append_line(path, "{}")
    assert read_lines(path) == [b'{"num', b"{}", b"", b"{}"]


class FullDisk(io.FileIO):
    """A file that takes only three bytes at a time, or none at all."""

    def write(self, content: Any) -> int:
        super().write(bytes(content)[:3])
        if content[:1] == b"!":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return 3


@pytest.mark.parametrize(("line", "code"), [('{"number": 2}', errno.ENOSPC), ("!", errno.EIO)])
def test_a_line_that_does_not_fit_is_an_error_and_leaves_nothing(
    line: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines"
    append_line(path, "{}")
    monkeypatch.setattr(Path, "open", lambda self, mode, buffering: FullDisk(self, mode.replace("b", "")))
    with pytest.raises(OSError) as caught:
        append_line(path, line)
    monkeypatch.undo()
    assert caught.value.errno == code
    assert path.read_bytes() == b"{}\n"


def append_many(path: Path, writer: int) -> None:
    for _ in range(200):
        append_line(path, json.dumps({"writer": writer, "filler": "x" * 10_000}))


def test_lines_of_parallel_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path, number)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [json.loads(line)["writer"] for line in read_lines(path)]
    assert sorted(found) == [0] * 200 + [1] * 200


def test_a_line_that_is_being_written_is_not_removed_as_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with path.open("ab", buffering=0) as file, ThreadPoolExecutor() as pool:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(b'{"num')
        appended = pool.submit(append_line, path, "{}")
        with pytest.raises(TimeoutError):
            appended.result(timeout=0.2)
        file.write(b'ber": 1}\n')
        fcntl.flock(file, fcntl.LOCK_UN)
    assert read_lines(path) == [b'{"number": 1}', b"{}"]
