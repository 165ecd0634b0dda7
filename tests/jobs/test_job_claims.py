"""One directory, one job: whoever begins, removes or replaces it."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from job_pairs import ONE_PROGRAM, Pairs, draw_pictures
from jobs_shared import Silent, table, tiny_encoder

import jepa_jax as jj
from jepa_jax import paths
from jepa_jax.jobs import JobOptions, ShardReport, open_source, run_job
from jepa_jax.paths import to_path
from jepa_jax.scored.reading import read_table

OPTIONS = JobOptions(batch_size=2, shard_size=2)


def test_of_two_jobs_in_one_directory_one_has_it(tmp_path: Path):
    with Pairs(tmp_path, seed=0, jobs=ONE_PROGRAM) as pairs:
        for number in range(14):
            pairs.try_pair(number, *pairs.drawn(number))


def is_complete(output: Path) -> bool:
    return json.loads((output / "manifest.json").read_text())["complete"]


class Meddling(Silent):
    """After the first part, something happens to the output directory."""

    def __init__(self, change):
        super().__init__()
        self._change = change

    def shard_written(self, report: ShardReport) -> None:
        super().shard_written(report)
        if len(self.reports) == 1:
            self._change()


@pytest.fixture
def source(tmp_path: Path):
    return open_source(draw_pictures(tmp_path / "in"))


def test_a_directory_that_is_removed_stops_the_job(tmp_path: Path, source):
    output = tmp_path / "out"
    watcher = Meddling(lambda: shutil.rmtree(output))
    with pytest.raises(jj.JobError, match=r"out was removed while the job ran.*begins it anew"):
        run_job(tiny_encoder(), source, output, watcher, OPTIONS)
    assert len(watcher.reports) == 1
    assert not output.exists()
    assert run_job(tiny_encoder(), source, output, Silent(), OPTIONS).scored == 12  # as it was told


def test_a_directory_without_its_manifest_stops_the_job(tmp_path: Path, source):
    output = tmp_path / "out"
    with pytest.raises(jj.JobError, match=r"has lost its manifest\.json.*remove its parts and give the same command"):
        run_job(tiny_encoder(), source, output, Meddling((output / "manifest.json").unlink), OPTIONS)
    with pytest.raises(jj.JobError, match="remove its parts"):
        run_job(tiny_encoder(), source, output, Silent(), OPTIONS)
    for part in (output / "scores").glob("part-*"):
        part.unlink()
    assert run_job(tiny_encoder(), source, output, Silent(), OPTIONS).scored == 12


def test_a_directory_that_another_job_took_over_stops_the_job(tmp_path: Path, source):
    output = tmp_path / "out"
    other = dataclasses.replace(OPTIONS, columns=("embedding",))

    def take_over() -> None:
        shutil.rmtree(output)
        run_job(tiny_encoder(), source, output, Silent(), other)

    watcher = Meddling(take_over)
    with pytest.raises(
        jj.JobError, match=r"belongs to another job \(columns: \['embedding'\] there, \[\] now;.*stops"
    ):
        run_job(tiny_encoder(), source, output, watcher, OPTIONS)
    assert len(watcher.reports) == 1
    assert is_complete(output)
    assert "embedding" in table(output).schema.names


def test_a_part_of_another_job_is_not_counted(tmp_path: Path, source):
    output, other = tmp_path / "out", tmp_path / "other"
    run_job(tiny_encoder(), source, output, Silent(), OPTIONS)
    expected = table(output)
    run_job(tiny_encoder(), source, other, Silent(), dataclasses.replace(OPTIONS, views=2, seed=3))
    name = "part-00002.parquet"
    of_other = pq.read_table(other / "scores" / name).select(expected.schema.names)
    assert of_other.schema.metadata != expected.schema.metadata
    pq.write_table(of_other, output / "scores" / name)
    watcher = Silent()
    run_job(tiny_encoder(), source, output, watcher, OPTIONS)
    assert [report.part for report in watcher.reports] == [name]
    assert table(output).equals(expected)

    def foreign_part() -> None:
        pq.write_table(of_other, output / "scores" / "part-00000.parquet")

    for part in (output / "scores").glob("part-*"):
        part.unlink()
    with pytest.raises(jj.JobError, match=r"00000\.parquet should hold 2 records and holds what another job"):
        run_job(tiny_encoder(), source, output, Meddling(foreign_part), OPTIONS)
    assert not is_complete(output)
    run_job(tiny_encoder(), source, output, Silent(), OPTIONS)
    assert table(output).equals(expected)


@pytest.mark.parametrize("version", [1, 3, None])
def test_a_directory_of_another_format_is_left_alone(version: int | None, tmp_path: Path, source):
    output = tmp_path / "out"
    run_job(tiny_encoder(), source, output, Silent(), OPTIONS)
    manifest = json.loads((output / "manifest.json").read_text())
    (output / "manifest.json").write_text(json.dumps(manifest | {"format_version": version}))
    expected = table(output)
    refusal = rf"manifest\.json has format version {version}; jepa_jax .* reads and writes version 2\. Use the version"
    for use in (lambda: run_job(tiny_encoder(), source, output, Silent(), OPTIONS), lambda: read_table(output)):
        with pytest.raises(jj.JobError, match=refusal):
            use()
    assert table(output).equals(expected)


def test_a_job_that_was_killed_before_its_records_were_written_goes_on(tmp_path: Path, source):
    output = tmp_path / "out"
    run_job(tiny_encoder(), source, output, Silent(), OPTIONS)
    (output / "_records.parquet").unlink()
    (output / "scores" / "part-00001.parquet").unlink()
    assert run_job(tiny_encoder(), source, output, Silent(), OPTIONS).resumed == 10
    assert (output / "_records.parquet").exists()
    (output / "_records.parquet").unlink()
    (tmp_path / "in" / "new.png").write_bytes((tmp_path / "in" / "000.png").read_bytes())
    with pytest.raises(jj.JobError, match="whose records are not those of the input"):
        run_job(tiny_encoder(), open_source(tmp_path / "in"), output, Silent(), OPTIONS)


def test_the_manifest_is_created_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = to_path(tmp_path / "manifest.json")
    assert paths.create(path, b"first")
    assert not paths.create(path, b"second")
    assert path.read_bytes() == b"first"
    path.unlink()

    # A disk that knows no links, such as exFAT: only renaming is left.
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(paths, "SETTLED", 0.0)
    assert paths.create(path, b"first")
    assert not paths.create(path, b"second")
    path.unlink()
    # Both look, both write; whoever was last has it.
    monkeypatch.setattr(paths, "time", type("Late", (), {"sleep": lambda _: path.write_bytes(b"second")}))
    assert not paths.create(path, b"first")
    assert [found.name for found in tmp_path.iterdir()] == ["manifest.json"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryFileSystem:
    """An object store: fsspec's own in memory."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    return MemoryFileSystem()


def test_an_object_store_holds_a_job_and_the_local_disk_nothing(
    tmp_path: Path, source, bucket: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    output = "memory://bucket/scores"
    run_job(tiny_encoder(), source, output, Silent(), OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    names = {name.rpartition("/")[2] for name in bucket.find("/bucket/scores")}
    assert {"manifest.json", "failures.parquet", "part-00000.parquet"} <= names
    assert not any(name.endswith(".tmp") for name in names)
    bucket.rm("/bucket/scores/scores/part-00003.parquet")
    assert run_job(tiny_encoder(), source, output, Silent(), OPTIONS).resumed == 10
    with pytest.raises(jj.JobError, match="belongs to another job"):
        run_job(tiny_encoder(), source, output, Silent(), dataclasses.replace(OPTIONS, columns=("embedding",)))
    path = to_path("memory://bucket/once")
    assert [paths.create(path, content) for content in (b"first", b"second")] == [True, False]
    assert path.read_bytes() == b"first"


def test_a_file_is_no_output_directory(tmp_path: Path, source):
    (tmp_path / "file").write_text("taken")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(jj.JobError, match=r"cannot be made a directory .*name another"):
            run_job(tiny_encoder(), source, output, Silent(), OPTIONS)


@pytest.mark.parametrize("output", ["az://bucket/scores", "hf://datasets/a/b", "http://host/scores"])
def test_a_store_that_cannot_be_written_is_refused_before_work_begins(
    output: str, tmp_path: Path, source, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(jj.ArgumentError, match=r"pip install adlfs|must be a local directory"):
        run_job(tiny_encoder(), source, output, Silent(), OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
