"""Frames between the suite and its workers arrive whole, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import random
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench.upgrade.protocol import MAX_HEADER, Channel, Closed, TimedOut

Channels = tuple[Channel, int]


@pytest.fixture
def pipe() -> Iterator[Channels]:
    """A channel that receives what it sends, and the descriptor at which others may write into it."""
    read_from, write_to = os.pipe()
    yield Channel(read_from, write_to), write_to
    os.close(read_from)
    with contextlib.suppress(OSError):
        os.close(write_to)


def test_a_frame_with_blobs_arrives_as_it_was_sent(pipe):
    channel, _ = pipe
    channel.send({"do": "picture", "name": "größe", "list": [1, None, 0.5]}, (b"", b"\0\xff" * 500, b"end"))
    channel.send({})
    assert channel.receive(1) == (
        {"do": "picture", "name": "größe", "list": [1, None, 0.5]},
        (b"", b"\0\xff" * 500, b"end"),
    )
    assert channel.receive(1) == ({}, ())


def test_a_frame_larger_than_the_pipe_arrives(pipe):
    channel, _ = pipe
    blob = random.Random(0).randbytes(3 * 2**20)
    sender = threading.Thread(target=channel.send, args=({"a": 1}, (blob,)))
    sender.start()
    assert channel.receive(10) == ({"a": 1}, (blob,))
    sender.join()


def frame(header: dict[str, Any], *blobs: bytes) -> bytes:
    text = json.dumps(header | {"blobs": [len(blob) for blob in blobs]}).encode()
    return struct.pack(">I", len(text)) + text + b"".join(blobs)


def test_bytes_that_arrive_one_by_one_are_put_together(pipe):
    channel, write_to = pipe

    def trickle() -> None:
        for byte in frame({"a": 1}, b"xyz"):
            os.write(write_to, bytes([byte]))
            time.sleep(0.001)

    sender = threading.Thread(target=trickle)
    sender.start()
    assert channel.receive(10) == ({"a": 1}, (b"xyz",))
    sender.join()


@pytest.mark.parametrize("sent", [0, 2, 10, -1])
def test_an_end_that_closes_anywhere_is_closed(pipe, sent):
    channel, write_to = pipe
    os.write(write_to, frame({"a": 1}, b"xyz")[:sent])
    os.close(write_to)
    for timeout in (1, None):
        with pytest.raises(Closed):
            channel.receive(timeout)


def test_nobody_to_read_is_closed():
    read_from, write_to = os.pipe()
    os.close(read_from)
    with pytest.raises(Closed):
        Channel(-1, write_to).send({"a": 1})
    os.close(write_to)


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are limited on POSIX")
def test_a_channel_with_a_high_descriptor_can_be_waited_for():
    import fcntl
    import resource

    many = 1100  # more than select() takes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= many:
        pytest.skip(f"no more than {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, many + 1), hard))
    read_from, write_to = os.pipe()
    high = fcntl.fcntl(read_from, fcntl.F_DUPFD, many)
    channel = Channel(high, -1)
    os.write(write_to, frame({"a": 1}))
    assert channel.receive(1) == ({"a": 1}, ())
    with pytest.raises(TimedOut):
        channel.receive(0.01)
    for descriptor in (read_from, write_to, high):
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("sent", [0, 2, 10, -1])
def test_a_frame_that_is_not_there_in_time_timed_out(pipe, sent):
    channel, write_to = pipe
    os.write(write_to, frame({"a": 1}, b"xyz")[:sent])
    began = time.monotonic()
    with pytest.raises(TimedOut):
        channel.receive(0.2)
    assert 0.15 < time.monotonic() - began < 5


def test_the_time_is_that_of_the_whole_frame(pipe):
    channel, write_to = pipe
    stop = threading.Event()

    def trickle() -> None:
        os.write(write_to, struct.pack(">I", 1000))
        while not stop.wait(0.05):
            os.write(write_to, b" ")

    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        with pytest.raises(TimedOut):
            channel.receive(0.4)
    finally:
        stop.set()
        sender.join()


@pytest.mark.parametrize("start", [struct.pack(">I", MAX_HEADER + 1), b"Loading pipeline components..."])
def test_what_is_no_frame_is_refused_with_the_reason(pipe, start):
    channel, write_to = pipe
    os.write(write_to, start)
    with pytest.raises(Closed, match=r"announces a header of \d+ bytes: something else wrote into the channel"):
        channel.receive(1)
