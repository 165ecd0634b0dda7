"""One data set of a hub on this machine, served over HTTP to the real `HfFileSystem`: listings, parts of files."""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import huggingface_hub.constants
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class DatasetHub:
    """The files of a data set, and what was asked for.

    Attributes:
        folder: that holds them.
        name: of the data set, another one for each test: listings of what has the same name are remembered.
        sent: bytes of files that were sent.
        status: in place of every answer, where it is not 0.
    """

    folder: Path
    name: str
    sent: list[int] = field(default_factory=list)
    status: int = 0

    def answer(self, path: str, ranged: str | None) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers."""
        if self.status:
            return self.status, b"{}", {}
        address = urlsplit(path)
        parts = unquote(address.path).strip("/").split("/")
        if parts[:4] == ["api", "datasets", *self.name.split("/")]:
            return self._told(parts[4:], parse_qs(address.query))
        if parts[:3] == ["datasets", *self.name.split("/")] and (file := self.folder / "/".join(parts[5:])).is_file():
            return self._content(file.read_bytes(), ranged)
        return 404, b"{}", {"X-Error-Code": "RepoNotFound" if parts[0] == "api" else "EntryNotFound"}

    def _told(self, parts: list[str], query: dict[str, list[str]]) -> tuple[int, bytes, dict[str, str]]:
        if parts[:1] != ["tree"]:
            return 200, json.dumps({"_id": "0", "id": self.name, "sha": COMMIT, "siblings": []}).encode(), {}
        place = self.folder / "/".join(parts[2:])
        if not place.is_dir():
            return 404, b"{}", {"X-Error-Code": "EntryNotFound"}
        deep = query.get("recursive", ["false"])[0].lower() == "true"
        return (
            200,
            json.dumps([self._entry(f) for f in sorted(place.rglob("*") if deep else place.iterdir())]).encode(),
            {},
        )

    def _entry(self, file: Path) -> dict[str, object]:
        path = str(file.relative_to(self.folder))
        kind, size = ("directory", 0) if file.is_dir() else ("file", file.stat().st_size)
        return {"type": kind, "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": size}

    def _content(self, content: bytes, ranged: str | None) -> tuple[int, bytes, dict[str, str]]:
        headers = {"ETag": '"0"', "X-Repo-Commit": COMMIT}
        if ranged is None:
            self.sent.append(len(content))
            return 200, content, headers
        first, last = ranged.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1]
        self.sent.append(len(part))
        return 206, part, headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[DatasetHub]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content, headers = self.hub.answer(self.path, self.headers.get("Range"))
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@functools.cache
def _address() -> str:
    """Of the one server of this process: who has asked it once remembers its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def dataset_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatasetHub]:
    """A hub with an empty data set, to which huggingface_hub is turned, here and in programs that are started."""
    hub = _Handler.hub = DatasetHub(tmp_path / "hub", f"some/{secrets.token_hex(4)}")
    hub.folder.mkdir()
    constants = huggingface_hub.constants
    template = _address() + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", _address())
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", _address())
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    yield hub
    huggingface_hub.close_session()
