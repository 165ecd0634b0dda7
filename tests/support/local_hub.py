"""A hub on this machine: folders served over HTTP as huggingface.co serves repositories, to the real client."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by their id, and the files that were fetched from them.

    Attributes:
        repositories: ``owner/name`` to the folder with its files.
        fetched: names, in the order in which they were asked for.
    """

    repositories: dict[str, Path] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[bytes, dict[str, str]] | None:
        """The content of an address, and its headers; None where there is nothing."""
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) > 4:
            folder = self.repositories.get("/".join(parts[2:4]))
            return folder and (json.dumps(_listing(parts[4], "/".join(parts[2:4]), folder)).encode(), {})
        folder = self.repositories.get("/".join(parts[:2]))
        if folder is None or len(parts) < 5 or not (file := folder / "/".join(parts[4:])).is_file():
            return None
        return file.read_bytes(), {"ETag": f'"{_oid(file)}"', "X-Repo-Commit": COMMIT}


def _listing(kind: str, name: str, folder: Path) -> object:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if kind == "tree":
        return [
            {"type": "file", "path": str(file.relative_to(folder)), "size": file.stat().st_size, "oid": _oid(file)}
            for file in files
        ]
    siblings = [{"rfilename": str(file.relative_to(folder))} for file in files]
    return {"_id": "0", "id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, to which huggingface_hub is turned, with an empty cache."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = hub.answer(self.path)
            error = "RepoNotFound" if self.path.startswith("/api/") else "EntryNotFound"
            content, headers = answer or (b"{}", {"X-Error-Code": error})
            if answer and self.command == "GET" and "/resolve/" in self.path:
                hub.fetched.append(unquote(urlsplit(self.path).path).split("/", 5)[5])
            self.send_response(200 if answer else 404)
            for header, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield hub
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()
    thread.join()
