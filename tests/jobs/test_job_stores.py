"""Jobs from and to object stores: a real S3 server on this machine, and a store that is busy now and then."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import logging
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import botocore.exceptions
import fsspec
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from jobs_shared import Silent, table, tiny_encoder
from PIL import Image
from s3_server import BUCKET, KEYS, counted_requests, s3_server

import jepa_jax as jj
from jepa_jax import paths
from jepa_jax.images.sources.remote import AHEAD
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.paths import to_path
from jepa_jax.scored.reading import read_table

SHARD = 4
OPTIONS = JobOptions(batch_size=4, shard_size=SHARD)
COUNT = 24


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and the same in a tar."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "pictures").mkdir()
    with tarfile.open(folder / "shard-0.tar", "w") as tar:
        for i in range(COUNT):
            (folder / "pictures" / f"{i:02d}.png").write_bytes(picture(i))
            member = tarfile.TarInfo(f"{i:02d}.png")
            member.size = len(picture(i))
            tar.addfile(member, io.BytesIO(picture(i)))
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    output = tmp_path_factory.mktemp("out")
    run_job(tiny_encoder(), open_source(folder / "pictures"), output, Silent(), OPTIONS)
    return table(output)


@pytest.fixture(scope="module")
def s3(folder: Path) -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server():
        store = fsspec.filesystem("s3")
        store.put(str(folder / "pictures"), f"{BUCKET}/pictures", recursive=True)
        store.put(str(folder / "shard-0.tar"), f"{BUCKET}/shards/shard-0.tar")
        yield f"s3://{BUCKET}"


def remote_table(output: str):
    store = fsspec.filesystem("s3", use_listings_cache=False)
    return ds.dataset(f"{output.removeprefix('s3://')}/scores", filesystem=store).to_table()


def test_from_and_to_s3_are_the_same_scores(s3: str, expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name, source in (("folder", f"{s3}/pictures"), ("tar", f"{s3}/shards/shard-*.tar")):
        output = f"{s3}/out/{name}"
        with counted_requests() as requests:
            summary = run_job(tiny_encoder(), open_source(source), output, Silent(), OPTIONS)
        assert summary.scored == COUNT
        found = remote_table(output)
        assert found["score"].equals(expected["score"])
        assert found["bytes"].equals(expected["bytes"])
        assert all(place.startswith(f"{s3}/") for place in found["place"].to_pylist())
        shards = COUNT // SHARD
        # A part is claimed and written; the manifest is begun and ended, the records and failures are written.
        assert requests["put_object"] <= 2 * shards + 8
        if name == "tar":  # one request for many pictures
            assert COUNT * len(picture(0)) < AHEAD
            reads = requests["get_object"]
            assert reads < COUNT + 2 * shards
        assert read_table(output).keys.tolist() == found["key"].to_pylist()
    assert list(tmp_path.iterdir()) == []


def test_a_job_on_s3_is_resumed_extended_and_one_jobs_alone(s3: str, expected):
    output = f"{s3}/out/resumed"
    source = open_source(f"{s3}/pictures")
    run_job(tiny_encoder(), source.some(20, None), output, Silent(), OPTIONS)
    to_path(f"{output}/scores/part-00003.parquet").unlink()
    watcher = Silent()
    assert run_job(tiny_encoder(), source.some(20, None), output, watcher, OPTIONS).resumed == 16
    assert [report.part for report in watcher.reports] == ["part-00003.parquet"]
    with pytest.raises(jj.JobError, match="belongs to another job"):
        run_job(tiny_encoder(), source.some(20, None), output, Silent(), dataclasses.replace(OPTIONS, views=2))
    run_job(tiny_encoder(), source, output, watcher, dataclasses.replace(OPTIONS, extend=True))
    assert [report.part for report in watcher.reports][1:] == ["part-00005.parquet"]
    assert remote_table(output)["score"].equals(expected["score"])


def test_what_is_created_once_is_created_once(s3: str):
    path = to_path(f"{s3}/once")
    assert [paths.create(path, content) for content in (b"first", b"second")] == [True, False]
    assert path.read_bytes() == b"first"
    assert paths.names_in(to_path(f"{s3}/nothing")) == []
    paths.remove(path)
    paths.remove(path)
    assert not path.exists()


def test_a_server_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": address, "AWS_MAX_ATTEMPTS": "1"}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(paths, "WAITS", ())
        store = fsspec.filesystem("s3", skip_instance_cache=True)
        store.retries = 1
        with pytest.raises(Exception, match="Could not connect") as raised:
            store.ls("bucket")
    said = paths.unreachable(raised.value)
    assert said is not None
    assert said.startswith(f"the store at {address} cannot be reached: Could not connect")
    assert said.endswith("check AWS_ENDPOINT_URL and the network.")
    assert paths.unreachable(ValueError("another")) is None
    said = paths.unreachable(botocore.exceptions.NoCredentialsError())
    assert said == (
        "the store asks who is there: Unable to locate credentials; set AWS_ACCESS_KEY_ID and its secret, or ~/.aws, "
        "or a role."
    )


def test_a_bucket_that_is_not_there_is_said(s3: str):
    with pytest.raises(jj.ArgumentError, match="does not exist"):
        open_source("s3://nobodys/pictures")
    with pytest.raises(jj.JobError, match=r"s3://nobodys/out.* cannot be written"):
        run_job(tiny_encoder(), open_source(f"{s3}/pictures"), "s3://nobodys/out", Silent(), OPTIONS)


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryFileSystem:
    """fsspec's own in memory, with the pictures."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(paths, "WAITS", (0.0, 0.0))
    found = MemoryFileSystem()
    for file in (folder / "pictures").iterdir():
        found.pipe_file(f"/in/{file.name}", file.read_bytes())
    return found


def refusing(monkeypatch: pytest.MonkeyPatch, every: int) -> list[str]:
    """Let the store refuse every so-many-th request; which ones."""
    refused: list[str] = []
    asked = itertools.count(1)
    for name in ("open", "cat_file", "pipe_file", "find"):
        whole = getattr(MemoryFileSystem, name)

        def perform(self, *arguments, whole=whole, name=name, **named):
            if next(asked) % every == 0:
                refused.append(name)
                raise ConnectionResetError("try again")
            return whole(self, *arguments, **named)

        monkeypatch.setattr(MemoryFileSystem, name, perform)
    return refused


def test_what_a_store_refuses_for_the_moment_is_asked_again(store, expected, monkeypatch: pytest.MonkeyPatch):
    refused = refusing(monkeypatch, every=7)
    summary = run_job(tiny_encoder(), open_source("memory://in"), "memory://out", Silent(), OPTIONS)
    assert (summary.scored, summary.failed) == (COUNT, 0)
    assert {"open", "pipe_file"} <= set(refused)
    parts = sorted(name for name in store.store if "/scores/part-" in name)
    scores = [score for name in parts for score in pq.read_table(io.BytesIO(store.store[name].getvalue()))["score"]]
    assert scores == list(expected["score"])
    assert json.loads(store.store["/out/manifest.json"].getvalue())["complete"]


def test_a_store_that_stays_away_stops_the_job(store, folder: Path, monkeypatch: pytest.MonkeyPatch):
    source = open_source(folder / "pictures")
    refusing(monkeypatch, every=1)
    with pytest.raises(jj.JobError, match=r"cannot be (read|written)"):
        run_job(tiny_encoder(), source, "memory://away", Silent(), OPTIONS)
