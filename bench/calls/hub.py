"""Downloads from the model hub: few attempts, each retry reported, and one sentence for each failure.

The files go into the hub's own cache, through ``huggingface_hub``, which has patience of its own: it waits as long as
a server asks for, and tries a broken connection again for as long as some bytes arrive. Here both are bounded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.calls.weight_files import INDEX
from bench.errors import BenchError

# Codes of HTTP that may go away: too many requests, and failures of the server.
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
# What the releases of huggingface_hub say of a file that has another size than announced.
_INCOMPLETE = ("Consistency check failed", "IncompleteRead")
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


class HubError(BenchError):
    """The hub refuses, or a file is not there or damaged; one sentence that names it and says what to do."""


class HubUnavailable(HubError):
    """The hub cannot be reached or fails, without a full stop: whether the cache has the files is still open."""


@dataclass(frozen=True)
class Patience:
    """How often and how long a download waits.

    Attributes:
        attempts: of a request or a file.
        resumes: how often the download of a file continues after its connection broke.
        first_wait_s: before the second attempt; each further wait is twice as long.
        longest_wait_s: a server that asks for more is not waited for.
    """

    attempts: int = 4
    resumes: int = 20
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0


PATIENCE = Patience()


def is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_snapshot(repository: str, revision: str | None) -> Path | None:
    """The folder of a revision in the cache, complete or not; ``None`` if the cache does not have it."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=[INDEX], local_files_only=True)
    except Exception:  # the type depends on the release of huggingface_hub
        return None
    return Path(folder)


@dataclass
class Repository:
    """A repository on the hub at one revision.

    Attributes:
        wanted: names model, repository and revision in messages.
        report: called with a line about each file and each retry.
    """

    id: str
    revision: str | None
    wanted: str
    report: Callable[[str], None]
    patience: Patience = field(default_factory=lambda: PATIENCE)
    _file: str = ""
    _answers: int = 0
    _is_sending: bool = False

    def download(self, choose: Callable[[Mapping[str, Any], Mapping[str, int | None]], Collection[str]]) -> Path:
        """Downloads the files that are chosen and not in the cache yet; returns their folder.

        The revision's name points to them only when all are there.

        Args:
            choose: gets the content of ``model_index.json`` and the size of each file in bytes, where the hub says
                it; returns the paths to download.

        Raises:
            HubUnavailable: the hub cannot be reached, fails, or asks to wait for long.
            HubError: the hub refuses, or what it sends is damaged.
        """
        with self._bounded():
            commit, sizes = self._listing()
            if INDEX not in sizes:
                raise HubError(f"{self.wanted}: the repository has no {INDEX}, so it is not a pipeline; correct 'id'.")
            index = self._fetch(INDEX, commit)
            try:
                content = json.loads(index.read_text(encoding="utf-8"))
            except ValueError:
                raise HubError(f"{self.wanted}: {INDEX} is not valid JSON; correct 'id' or 'revision'.") from None
            paths = [path for path in choose(content, sizes) if path != INDEX]
            for number, path in enumerate(paths, start=2):
                if not (index.parent / path).exists():
                    size = f" ({mebibytes(sizes[path] or 0)})" if sizes.get(path) else ""
                    self.report(f"{self.id}: [{number}/{len(paths) + 1}] {path}{size}")
                self._fetch(path, commit)
            if cached_snapshot(self.id, self.revision) != index.parent:
                self._fetch(INDEX, self.revision or "main")
        return index.parent

    def _listing(self) -> tuple[str, dict[str, int | None]]:
        from huggingface_hub import HfApi, constants

        self._begin("its list of files")
        try:
            info = HfApi().model_info(
                self.id, revision=self.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT, files_metadata=True
            )
        except HubError:
            raise
        except Exception as error:  # the type depends on the releases of huggingface_hub and its HTTP client
            raise self._refusal(error) from error
        if not info.sha:
            raise HubError(f"{self.wanted}: {_endpoint()} does not say which commit it has; is HF_ENDPOINT a hub?")
        return info.sha, {file.rfilename: file.size for file in info.siblings or ()}

    def _fetch(self, path: str, revision: str) -> Path:
        """A file in the cache, downloaded if it is not there, and checked then."""
        from huggingface_hub import constants, hf_hub_download

        cached = cached_snapshot(self.id, revision)
        known = cached is not None and (cached / path).exists()
        for attempt in range(1, self.patience.attempts + 1):
            self._begin(path)
            try:
                file = Path(
                    hf_hub_download(self.id, path, revision=revision, etag_timeout=constants.HF_HUB_ETAG_TIMEOUT)
                )
            except HubError:
                raise
            except Exception as error:
                if not any(sign in str(error) for sign in _INCOMPLETE):
                    raise self._refusal(error) from error
                trouble = "arrived incomplete"
            else:
                if known or is_intact(file):
                    return file
                forget(file)
                trouble = "arrived with another content than its hash says"
            if attempt < self.patience.attempts:
                self._wait(f"{path} {trouble}", self._backoff(attempt), attempt)
        raise HubError(
            f"{self.wanted}: {path} {trouble}, {self.patience.attempts} times; nothing of it is kept: try again later, "
            "and check proxies and mirrors (HF_ENDPOINT) on the way."
        )

    def _begin(self, what: str) -> None:
        self._file, self._answers = what, 0

    def _backoff(self, attempt: int) -> float:
        return float(min(self.patience.longest_wait_s, self.patience.first_wait_s * 2 ** (attempt - 1)))

    def _wait(self, trouble: str, seconds: float, attempt: int) -> None:
        number = f"attempt {attempt + 1} of {self.patience.attempts}"
        self.report(f"{self.id}: {trouble}; {number} in {seconds:.3g} s")
        time.sleep(seconds)

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        """Within the block, the requests of this thread to the hub are retried here and no longer by the library."""
        from huggingface_hub import get_session

        session: Any = get_session()
        send = session.send
        session.send = lambda request, **options: self._send(send, request, options)
        try:
            yield
        finally:
            del session.send

    def _send(self, send: Callable[..., Any], request: Any, options: dict[str, Any]) -> Any:
        if self._is_sending:  # a redirect within a request
            return send(request, **options)
        self._is_sending = True
        try:
            return self._answered(send, request, options)
        finally:
            self._is_sending = False

    def _answered(self, send: Callable[..., Any], request: Any, options: dict[str, Any]) -> Any:
        host = urlsplit(str(request.url)).netloc
        if request.method == "GET":
            self._answers += 1
            if self._answers > 1 + self.patience.resumes:
                raise self._unavailable(f"the connection to {host} broke {self._answers - 1} times")
            if self._answers > 1:
                self.report(f"{self.id}: {self._file}: the connection to {host} broke; continuing the download")
        for attempt in range(1, self.patience.attempts + 1):
            asked = None
            try:
                answer = send(request, **options)
            except Exception as error:  # each HTTP client has its own
                trouble = f"{host} did not answer ({_first_line(error)})"
            else:
                if answer.status_code not in RETRIED:
                    return answer
                trouble = f"{host} answered with HTTP {answer.status_code}"
                asked = _retry_after(answer.headers)
                answer.close()
            if asked is not None and asked > self.patience.longest_wait_s:
                raise self._unavailable(f"{trouble} and asks to wait {asked:g} s")
            if attempt < self.patience.attempts:
                self._wait(f"{self._file}: {trouble}", max(asked or 0.0, self._backoff(attempt)), attempt)
        raise self._unavailable(f"{trouble}, {self.patience.attempts} times")

    def _unavailable(self, trouble: str) -> HubUnavailable:
        return HubUnavailable(f"{self.wanted}: {_endpoint()} did not provide it ({self._file}: {trouble})")

    def _refusal(self, error: Exception) -> HubError:
        """Why the hub refused, in one sentence; the library wraps the real cause in other exceptions."""
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        causes = tuple(_causes(error))
        unavailable = next((cause for cause in causes if isinstance(cause, HubError)), None)
        if unavailable:
            return unavailable

        def caused_by(kind: type[BaseException]) -> bool:
            return any(isinstance(cause, kind) and not isinstance(cause, LocalEntryNotFoundError) for cause in causes)

        status = next((code for cause in causes if (code := _status(cause))), None)
        wanted = self.wanted
        if caused_by(GatedRepoError):
            return HubError(f"{wanted}: the repository is gated; accept its terms and set HF_TOKEN.")
        if caused_by(RevisionNotFoundError):
            return HubError(f"{wanted}: no such revision; correct 'revision' in the model's entry.")
        if caused_by(RepositoryNotFoundError):
            return HubError(
                f"{wanted}: no such repository, or it is private; correct 'id' in the model's entry or set HF_TOKEN."
            )
        if caused_by(EntryNotFoundError):
            return HubError(
                f"{wanted}: {self._file} is in the repository's list of files, but the hub does not have it; "
                "pin 'revision' in the model's entry to a commit that has it."
            )
        if status == 401:
            return HubError(f"{wanted}: the hub does not accept the token; set HF_TOKEN to a valid one or unset it.")
        if status == 403:
            return HubError(f"{wanted}: {self._file}: access is forbidden; set HF_TOKEN to a token that may read it.")
        return self._unavailable(_first_line(causes[-1]))


def is_intact(file: Path) -> bool:
    """Whether a file of the cache has the content that the hub announced.

    The cache names each content by its ETag: SHA-256 for large files, git's hash for others, and SHA-1 on some mirrors.
    Without such a name, as on a file system without links, nothing is known and the file counts as intact.
    """
    name = content_of(file).name
    if _SHA256.fullmatch(name):
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == name
    if _SHA1.fullmatch(name):
        data = file.read_bytes()
        return name in (hashlib.sha1(start + data).hexdigest() for start in (b"blob %d\0" % len(data), b""))
    return True


def is_another(file: Path, sha256: str) -> bool:
    """Whether the cache says that a file has another SHA-256 than this one."""
    name = content_of(file).name
    return bool(_SHA256.fullmatch(name)) and name != sha256


def forget(file: Path) -> None:
    """Removes a file and its content from the cache, so that it is downloaded again."""
    content = content_of(file)
    file.unlink(missing_ok=True)
    content.unlink(missing_ok=True)


def content_of(file: Path) -> Path:
    """The content that a file of the cache points to; it may itself be a link into a store of several caches."""
    return file.parent / file.readlink() if file.is_symlink() else file


def mebibytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait; ``None`` if it does not say, or gives a date."""
    try:
        return float(headers["Retry-After"])
    except (KeyError, ValueError):
        return None
