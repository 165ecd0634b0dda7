"""A job whose input has grown, changed and lost pictures."""

from __future__ import annotations

import dataclasses
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from job_pairs import draw_pictures as pictures_in
from jobs_shared import Silent, failures, table, tiny_encoder
from PIL import Image

import jepa_jax as jj
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.jobs.output.manifest import read_manifest
from jepa_jax.scored.reading import read_table

OPTIONS = JobOptions(batch_size=4, shard_size=4)
EXTEND = dataclasses.replace(OPTIONS, extend=True)


def parts_of(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (output / "scores").iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pictures_in(tmp_path / "in", 10)


def test_what_is_new_is_scored_and_what_is_gone_keeps_its_row(folder: Path, tmp_path: Path):
    output = tmp_path / "out"
    run_job(tiny_encoder(), open_source(folder), output, Silent(), OPTIONS)
    before, rows = parts_of(output), table(output)
    more = pictures_in(tmp_path / "more", 6, seed=1)
    for path in more.iterdir():
        shutil.move(path, folder / f"new-{path.name}")
    names = sorted(path.name for path in folder.iterdir())
    (folder / names[1]).unlink()
    with pytest.raises(jj.JobError, match=r"6 \(such as 'new-.*1 \(such as .*among the others with --extend"):
        run_job(tiny_encoder(), open_source(folder), output, Silent(), OPTIONS)
    watcher = Silent()
    summary = run_job(tiny_encoder(), open_source(folder), output, watcher, EXTEND)
    assert (summary.records, summary.scored, summary.resumed) == (16, 16, 10)
    assert sum(report.scored for report in watcher.reports) == 6
    after = parts_of(output)
    assert {name: after[name] for name in before} == before
    assert table(output).slice(0, 10).equals(rows)
    assert len(set(table(output)["key"].to_pylist())) == 16
    assert pq.read_table(output / "gone.parquet")["key"].to_pylist() == [names[1]]
    chosen_from = read_table(output)
    assert len(chosen_from) == 15
    assert [dict(failure)["key"] for failure in chosen_from.failures] == [names[1]]
    assert names[1] not in chosen_from.keys
    held = jj.ScoredImages.read(output)
    assert held.keys == list(chosen_from.keys)
    assert held.failures["key"].to_pylist() == [names[1]]
    # Once more, and resumed without the word, nothing is left to do.
    for options in (EXTEND, OPTIONS):
        watcher = Silent()
        assert run_job(tiny_encoder(), open_source(folder), output, watcher, options).resumed == 16
        assert watcher.reports == []
    assert parts_of(output) == after
    # The rows are those of a job that saw all from the beginning.
    run_job(tiny_encoder(), open_source(folder), tmp_path / "whole", Silent(), OPTIONS)
    whole = {row["key"]: row["score"] for row in table(tmp_path / "whole").to_pylist()}
    found = {row["key"]: row["score"] for row in table(output).to_pylist()}
    assert whole == {key: score for key, score in found.items() if key != names[1]}


def test_a_picture_that_changed_is_scored_again(folder: Path, tmp_path: Path):
    output = tmp_path / "out"
    (folder / "broken.png").write_bytes(b"broken")
    run_job(tiny_encoder(), open_source(folder), output, Silent(), OPTIONS)
    names = sorted(path.name for path in folder.iterdir())
    Image.new("RGB", (90, 70), "red").save(folder / names[2])
    Image.new("RGB", (90, 70), "blue").save(folder / "broken.png")
    watcher = Silent()
    assert run_job(tiny_encoder(), open_source(folder), output, watcher, EXTEND).records == 11
    assert sum(report.scored for report in watcher.reports) == 2
    found = table(output)["key"].to_pylist()
    assert sorted(found) == names
    assert failures(output) == {}
    run_job(tiny_encoder(), open_source(folder), tmp_path / "whole", Silent(), OPTIONS)
    whole = {row["key"]: row["score"] for row in table(tmp_path / "whole").to_pylist()}
    assert {row["key"]: row["score"] for row in table(output).to_pylist()} == whole
    assert run_job(tiny_encoder(), open_source(folder), output, Silent(), OPTIONS).resumed == 11


def test_an_extension_that_was_killed_goes_on(folder: Path, tmp_path: Path):
    output = tmp_path / "out"
    run_job(tiny_encoder(), open_source(folder), output, Silent(), OPTIONS)
    for path in pictures_in(tmp_path / "more", 9, seed=1).iterdir():
        shutil.move(path, folder / f"new-{path.name}")

    class Killed(BaseException):
        pass

    class Killer(Silent):
        def shard_written(self, report) -> None:
            raise Killed

    with pytest.raises(Killed):
        run_job(tiny_encoder(), open_source(folder), output, Killer(), EXTEND)
    assert run_job(tiny_encoder(), open_source(folder), output, Silent(), OPTIONS).resumed == 14
    assert len(table(output)) == 19


def test_a_job_that_is_extended_while_it_runs_stops(folder: Path, tmp_path: Path):
    """Else its end would write a manifest that knows nothing of the extension."""
    output = tmp_path / "out"

    def extend() -> None:
        run_job(tiny_encoder(), open_source(folder), output, Silent(), EXTEND)

    # Beside the job: an extension waits for the parts that the job has in hand.
    with ThreadPoolExecutor(1) as beside:
        extending: list[Future[None]] = []

        class Meddling(Silent):
            def shard_written(self, report) -> None:
                if extending:
                    return
                for path in pictures_in(tmp_path / "more", 4, seed=1).iterdir():
                    shutil.move(path, folder / f"new-{path.name}")
                extending.append(beside.submit(extend))
                while not (read_manifest(output) or {}).get("extensions"):
                    assert not extending[0].done() or not extending[0].exception()
                    time.sleep(0.02)

        with pytest.raises(jj.JobError, match=r"belongs to another job \(extensions: .*which stops"):
            run_job(tiny_encoder(), open_source(folder), output, Meddling(), OPTIONS)
        extending[0].result(120)
    assert run_job(tiny_encoder(), open_source(folder), output, Silent(), OPTIONS).records == 14


def test_positions_tell_nothing_apart(tmp_path: Path):
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), np.uint8)
    np.save(tmp_path / "a.npy", pixels[:4])
    run_job(tiny_encoder(), open_source(tmp_path / "a.npy"), tmp_path / "out", Silent(), OPTIONS)
    np.save(tmp_path / "a.npy", pixels)
    with pytest.raises(jj.JobError, match="told apart by their position alone"):
        run_job(tiny_encoder(), open_source(tmp_path / "a.npy"), tmp_path / "out", Silent(), EXTEND)
