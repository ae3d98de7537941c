"""A hub on this machine with one repository; tests choose what goes wrong."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import huggingface_hub.constants
import pytest

from bench.calls import hub as downloads

REVISION = "f4a9c0c9dd04b2fdadc7d676721860c3df651a14"
# Enough to see that attempts and waits are counted.
IMPATIENT = downloads.Patience(attempts=3, resumes=2, first_wait_s=0.01, longest_wait_s=0.05)


class Hub(BaseHTTPRequestHandler):
    """A hub whose only repository is ``tree``; it refuses all others with the hub's own messages.

    Attributes:
        troubles: by method and file, or ``list`` for the list of files: what goes wrong with the next requests, in
            order.
        requests: method, path and headers of each request.
    """

    repo_id = "somebody/served"
    tree: ClassVar[Path | None] = None
    troubles: ClassVar[dict[tuple[str, str], list[Callable[[Hub], None]]]] = {}
    requests: ClassVar[list[tuple[str, str, dict[str, str]]]] = []
    released: ClassVar[threading.Event] = threading.Event()
    refusals: ClassVar = {
        "absent": (404, "RepoNotFound"),
        "private": (401, "RepoNotFound"),
        "gated": (403, "GatedRepo"),
        "other-revision": (404, "RevisionNotFound"),
        "failing": (500, ""),
    }

    def do_GET(self) -> None:
        path, _, _ = self.path.partition("?")
        self.requests.append((self.command, path, dict(self.headers)))
        tree = self.tree
        files = sorted(path for path in tree.rglob("*") if path.is_file()) if tree else []
        names = [file.relative_to(tree).as_posix() for file in files] if tree else []
        listed = path in (f"/api/models/{self.repo_id}", f"/api/models/{self.repo_id}/revision/main")
        name = "list" if listed else path.split("/", 5)[5] if path.startswith(f"/{self.repo_id}/resolve/") else ""
        waiting = self.troubles.get((self.command, name), [])
        if waiting:
            waiting.pop(0)(self)
        elif "/somebody/hangs-up" in path:
            self.close_connection = True
        elif listed:
            entries = zip(names, files, strict=True)
            siblings = [{"rfilename": name, "size": file.stat().st_size} for name, file in entries]
            self.answer_json({"id": self.repo_id, "sha": REVISION, "siblings": siblings})
        elif tree and name in names:
            self.answer((tree / name).read_bytes())
        else:
            status, code = next((self.refusals[name] for name in self.refusals if f"/{name}" in path), (404, ""))
            self.answer(b"", status, {"X-Error-Code": code} if code else {})

    do_HEAD = do_GET

    @property
    def content(self) -> bytes:
        """Of the file that was asked for."""
        assert self.tree
        return (self.tree / self.path.partition("?")[0].split("/", 5)[5]).read_bytes()

    def answer_json(self, content: Any) -> None:
        self.answer(json.dumps(content).encode())

    def answer(
        self, content: bytes, status: int = 200, headers: dict[str, str] | None = None, sent: int | None = None
    ) -> None:
        """Args:
        sent: how many bytes of the content are sent before the connection ends.
        """
        self.send_response(status)
        etag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": REVISION}
        for name, value in ({"Content-Length": str(len(content))} | etag | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:sent])
        self.close_connection = sent is not None

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def refusing(status: int, **headers: str) -> Callable[[Hub], None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda hub: hub.answer(b"", status, named)


def hanging(hub: Hub) -> None:
    Hub.released.wait()
    hub.close_connection = True


def breaking(hub: Hub) -> None:
    """The connection ends within the file."""
    hub.answer(hub.content, sent=len(hub.content) // 2)


def truncated(hub: Hub) -> None:
    """The file itself is shorter than announced."""
    hub.answer(hub.content[:-1])


def altered(hub: Hub) -> None:
    """The file has its size, and another last byte."""
    content = hub.content
    hub.answer(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, with the hub switched off and all connections an error; returns the cache."""

    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def connect_here(self: socket.socket, address: Any) -> None:
        assert address[0] == "127.0.0.1", f"a connection to {address} was tried"
        connect(self, address)

    def resolve_here(host: Any, *arguments: Any, **keywords: Any) -> Any:
        assert host == "127.0.0.1", f"the address of {host} was looked up"
        return resolve(host, *arguments, **keywords)

    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    return cache


@pytest.fixture
def hub(offline: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A hub on this machine, with an empty cache; no other address can be reached, and waits are short."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(downloads, "PATIENCE", IMPATIENT)
    monkeypatch.setattr(Hub, "troubles", {})
    monkeypatch.setattr(Hub, "requests", [])
    monkeypatch.setattr(Hub, "released", threading.Event())
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        Hub.released.set()
        server.shutdown()
        thread.join()
