"""Paths with a scheme in a list: read through fsspec or from a web server, or one clear reason before work begins."""

import errno
import http.server
import io
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from jobs_shared import Silent, failures, table, tiny_encoder
from PIL import Image

import jepa_jax as jj
from jepa_jax.errors import ImageError
from jepa_jax.images import Records, open_source
from jepa_jax.images.sources import remote
from jepa_jax.images.sources.folder import _walk_remote
from jepa_jax.jobs import JobOptions, run_job


def picture(red: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (12, 10), (red, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


class Answers(http.server.BaseHTTPRequestHandler):
    """Pictures, a redirection, and every kind of trouble."""

    def do_GET(self) -> None:
        """Answer by path."""
        name = self.path.rsplit("/", 1)[-1]
        if name == "moved.png":
            self.send_response(302)
            self.send_header("Location", "/1.png")
            self.end_headers()
        elif name.startswith("status-"):
            self.send_error(int(name.removeprefix("status-").removesuffix(".png")))
        elif name == "cut.png":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"too little")
        elif name == "huge.png":
            self.send_response(200)
            self.send_header("Content-Length", str(2**40))
            self.end_headers()
        elif name == "nothing.png":
            self.close_connection = True
        elif name == "silence.png":
            threading.Event().wait(1.5)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(picture(200 if name.startswith("%C3%A9t%C3%A9") else 1))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture
def in_memory() -> Iterator[None]:
    store = fsspec.filesystem("memory")
    store.pipe("/pictures/0.png", picture(3))
    store.pipe("/pictures/below/1.png", picture(4))
    yield
    store.rm("/pictures", recursive=True)


def listed(folder: Path, *paths: str) -> Records:
    (folder / "list.csv").write_text("path\n" + "".join(f'"{path}"\n' for path in paths))
    return open_source(folder / "list.csv")


def test_pictures_of_a_web_server(server: str, tmp_path: Path):
    (tmp_path / "0.png").write_bytes(picture(5))
    names = [f"{server}/1.png", f"{server}/moved.png", f"{server}/été x.png?a=b%20c", "0.png"]
    source = listed(tmp_path, *names)
    assert list(source.keys) == names
    assert [source.read(i) for i in range(4)] == [picture(1), picture(1), picture(200), picture(5)]
    assert source.path(0) == names[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_job_over_the_web(workers: int, server: str, tmp_path: Path):
    source = listed(tmp_path, f"{server}/1.png", f"{server}/status-404.png", f"{server}/huge.png")
    run_job(tiny_encoder(), source, tmp_path / "out", Silent(), JobOptions(batch_size=2, workers=workers))
    assert table(tmp_path / "out")["key"].to_pylist() == [f"{server}/1.png"]
    reasons = failures(tmp_path / "out")
    assert reasons[f"{server}/status-404.png"] == "the server answers 404 Not Found"
    assert "over the limit" in reasons[f"{server}/huge.png"]


@pytest.mark.parametrize("status", [401, 403, 404, 410, 500])
def test_what_a_server_refuses_is_the_records_own(status: int, server: str, tmp_path: Path):
    with pytest.raises(ImageError, match=f"the server answers {status}"):
        listed(tmp_path, f"{server}/status-{status}.png").read(0)


@pytest.mark.parametrize("name", ["status-429.png", "status-503.png", "cut.png", "nothing.png"])
def test_a_server_in_trouble_is_not_the_images_fault(name: str, server: str, tmp_path: Path):
    with pytest.raises(ConnectionError):
        listed(tmp_path, f"{server}/{name}").read(0)


def test_no_server_no_name_and_no_answer(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = listed(tmp_path, "http://127.0.0.1:1/a.png", "http://no-such-host.invalid/a.png", f"{server}/silence.png")
    with pytest.raises(ConnectionRefusedError) as caught:
        source.read(0)
    assert caught.value.errno == errno.ECONNREFUSED
    with pytest.raises(ConnectionError, match=r"no connection to no-such-host\.invalid"):
        source.read(1)
    monkeypatch.setattr(remote, "TIMEOUT", 0.2)
    with pytest.raises(TimeoutError) as caught:
        source.read(2)
    assert caught.value.errno == errno.ETIMEDOUT


def test_file_urls(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name, red in (("a b.png", 1), ("a%20c.png", 2)):
        (tmp_path / "in" / name).write_bytes(picture(red))
    source = listed(
        tmp_path,
        f"file://{tmp_path}/in/a%20b.png",
        f"file://{tmp_path}/in/a b.png#",
        f"file://{tmp_path}/in/a%20c.png",
        f"file://localhost{tmp_path}/in/a b.png",
        f"file://elsewhere{tmp_path}/in/a b.png",
    )
    assert [source.read(i) for i in (0, 2, 3)] == [picture(1), picture(2), picture(1)]
    with pytest.raises(FileNotFoundError):
        source.read(1)
    with pytest.raises(ImageError, match="of the machine 'elsewhere'"):
        source.read(4)
    assert listed(tmp_path, f"local://{tmp_path}/in/a b.png").read(0) == picture(1)
    with pytest.raises(ImageError, match="no regular file"):
        listed(tmp_path, "file:///dev/zero").read(0)
    assert list(open_source(f"file://{tmp_path}/in").keys) == ["a b.png", "a%20c.png"]


def test_any_scheme_of_fsspec(in_memory: None, tmp_path: Path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("in/2.png", picture(6))
    fsspec.filesystem("memory").pipe("/pictures/all.zip", stream.getvalue())
    source = listed(
        tmp_path, "memory://pictures/0.png", "zip://in/2.png::memory://pictures/all.zip", "memory://no.png"
    )
    assert [source.read(i) for i in range(2)] == [picture(3), picture(6)]
    with pytest.raises(FileNotFoundError):
        source.read(2)


def test_a_folder_behind_a_scheme(in_memory: None):
    assert sorted(file for file, _ in _walk_remote("memory://pictures")) == ["0.png", "below/1.png"]


@pytest.mark.parametrize(
    ("path", "package"), [("sftp://host/a.png", "paramiko"), ("s3://bucket/a.png", "s3fs"), ("gs://b/a.png", "gcsfs")]
)
def test_a_scheme_that_lacks_its_package(path: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, path.split(":")[0], raising=False)
    with pytest.raises(jj.ArgumentError, match=rf"lists {path}: .*:// paths cannot be read here: .*{package}"):
        listed(tmp_path, "0.png", path)
    if not path.startswith("sftp"):
        with pytest.raises(jj.ArgumentError, match=rf":// paths cannot be read here: .*{package}"):
            open_source(path)


def test_a_scheme_that_is_unknown(tmp_path: Path):
    with pytest.raises(jj.ArgumentError, match=r"lists nowhere://a\.png: nowhere:// is no scheme that fsspec knows"):
        listed(tmp_path, "0.png", "nowhere://a.png")
    with pytest.raises(jj.ArgumentError, match=r"pictures behind ftp:// are listed by their paths in a \.csv"):
        open_source("ftp://host/pictures")
    with pytest.raises(jj.ArgumentError, match=r"pictures behind https:// are listed"):
        open_source("https://127.0.0.1/pictures.tar")
