"""Jobs that predict most scores: a sample and a tail are exact, and say so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from job_kills import AMORTISED, ScriptedKills
from job_pairs import draw_pictures
from jobs_shared import Silent, failures, run_score, table, tiny_encoder
from rich.console import Console

import jepa_jax as jj
from jepa_jax.amortised import Amortised
from jepa_jax.cli.dry_run import print_dry_run
from jepa_jax.costs.dry_run import Stages, dry_run
from jepa_jax.costs.pilot import Pilot
from jepa_jax.encoders import save_encoder
from jepa_jax.jobs import Amortise, JobOptions, open_source, run_amortised, run_job
from jepa_jax.scoring.options import ScoreOptions

SAMPLE, RECORDS, ESCALATED = 80, 120, 0.1
OPTIONS = JobOptions(batch_size=8, shard_size=50, amortise=Amortise(SAMPLE, escalate=ESCALATED))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = draw_pictures(tmp_path_factory.mktemp("pictures") / "in", RECORDS)
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def output(folder: Path) -> Path:
    output = folder.parent / "out"
    assert run_amortised(tiny_encoder(), open_source(folder), output, Silent(), OPTIONS).scored == RECORDS
    return output


@pytest.fixture(scope="module")
def exact(folder: Path) -> dict[str, float]:
    output, options = folder.parent / "exact", JobOptions(ScoreOptions(spectrum=False), batch_size=8)
    run_job(tiny_encoder(), open_source(folder), output, Silent(), options)
    return dict(zip(*(table(output)[name].to_pylist() for name in ("key", "score")), strict=True))


def rows_of(output: Path) -> dict[str, dict]:
    return {row["key"]: row for row in table(output).to_pylist()}


def test_each_record_is_there_once_and_says_how_it_was_scored(folder: Path, output: Path, exact: dict[str, float]):
    rows = rows_of(output)
    assert list(rows) == [key for key in open_source(folder).keys if key != "broken.png"]
    assert "broken.png" in failures(output)
    sample = open_source(folder).some(SAMPLE, 0).keys
    by_method = {name: {key for key, row in rows.items() if row["method"] == name} for name in ("exact", "amortised")}
    assert len(by_method["exact"]) + len(by_method["amortised"]) == RECORDS
    assert by_method["exact"].issuperset(set(sample) - {"broken.png"})
    for key in by_method["exact"]:
        row = rows[key]
        assert row["score"] == pytest.approx(exact[key], abs=1e-4)
        assert row["score_high"] - row["score"] == pytest.approx(row["score_error"])
        assert row["precision"] == "float32"
    for key in by_method["amortised"]:
        assert rows[key]["score_error"] is None
        assert rows[key]["score_low"] < rows[key]["score"] < rows[key]["score_high"]
    assert json.loads((output / "manifest.json").read_text())["amortised"]["exact"] == len(by_method["exact"])


def test_the_lowest_predictions_are_computed_exactly(output: Path):
    predicted = rows_of(output / "_predicted")
    lowest = sorted(predicted, key=lambda key: predicted[key]["score"])[: round(ESCALATED * RECORDS)]
    assert {rows_of(output)[key]["method"] for key in lowest} == {"exact"}


def test_predictions_are_those_of_the_stored_predictor(folder: Path, output: Path):
    head = Amortised.load(output / "predictor", tiny_encoder())
    rows, source = rows_of(output), open_source(folder)
    keys = [key for key, row in rows.items() if row["method"] == "amortised"]
    images = tiny_encoder().preprocess([read_picture(source.path(source.keys.index(key))) for key in keys])
    found = head.predict(images)
    # One forward pass in float32, in another batch.
    np.testing.assert_allclose(found.score, [rows[key]["score"] for key in keys], atol=0.01)
    np.testing.assert_array_equal(found.unfamiliar, [rows[key]["unfamiliar"] for key in keys])


def read_picture(path: str | None) -> np.ndarray:
    from PIL import Image

    assert path is not None
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_finished_job_is_left_as_it_is(folder: Path, output: Path):
    before = {path: path.stat().st_mtime_ns for path in (output / "scores").iterdir()}
    said = Silent()
    summary = run_amortised(tiny_encoder(), open_source(folder), output, said, OPTIONS)
    assert (summary.scored, summary.failed, summary.resumed) == (RECORDS, 1, RECORDS + 1)
    assert before == {path: path.stat().st_mtime_ns for path in (output / "scores").iterdir()}
    assert json.loads((output / "manifest.json").read_text())["amortised"]["fitted_on"] > 0


def test_a_predictor_is_used_again_and_pinned(folder: Path, output: Path, tmp_path: Path):
    encoder, source = tiny_encoder(), open_source(folder)
    head = Amortised.load(output / "predictor", encoder)
    for tail in ("highest", (0.4, 0.5)):
        ask = Amortise(predictor=head, escalate=0.05, tail=tail)
        options = dataclasses.replace(OPTIONS, amortise=ask)
        place = tmp_path / str(tail)
        run_amortised(encoder, source, place, Silent(), options)
        assert pq.read_table(place / "scores")["score"].null_count == 0
        exact = [row for row in rows_of(place).values() if row["method"] == "exact"]
        assert 0 < len(exact) <= 0.11 * RECORDS
        assert Amortised.load(place / "predictor", encoder).digest == head.digest
    other = jj.fit_amortised(
        encoder,
        None,
        np.arange(100.0),
        features=head.standard.mean[None] + np.random.default_rng(0).normal(size=(100, len(head.standard.mean))),
    )
    options = dataclasses.replace(OPTIONS, amortise=Amortise(predictor=other, escalate=0.05, tail="highest"))
    with pytest.raises(jj.JobError, match=r"belongs to another job.*predictor"):
        run_amortised(encoder, source, tmp_path / "highest", Silent(), options)


def test_an_escalation_for_a_recall(folder: Path, output: Path, tmp_path: Path):
    head = Amortised.load(output / "predictor", tiny_encoder())
    ask = Amortise(predictor=head, escalate=0.1, recall=0.9)
    notes: list[str] = []

    class Telling(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    run_amortised(
        tiny_encoder(), open_source(folder), tmp_path / "out", Telling(), dataclasses.replace(OPTIONS, amortise=ask)
    )
    assert any("90.0% of the exact tail (expected; a promise takes" in note for note in notes), notes


def test_where_no_picture_can_be_used_all_have_reasons(output: Path, tmp_path: Path):
    head = Amortised.load(output / "predictor", tiny_encoder())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    options = dataclasses.replace(OPTIONS, amortise=Amortise(predictor=head))
    summary = run_amortised(tiny_encoder(), open_source(tmp_path / "in"), tmp_path / "out", Silent(), options)
    assert (summary.scored, summary.failed) == (0, 1)


@pytest.mark.parametrize("change", [45, *(pytest.param(change, marks=pytest.mark.exhaustive) for change in (25, 70))])
def test_a_job_that_is_killed_goes_on(tmp_path: Path, change: int):
    """At a change to its directory in each stage; `python -m tests.kill --amortised` tries all."""
    with ScriptedKills(tmp_path, job=AMORTISED, records=100) as kills:
        assert kills.kill_at(change)


def test_what_makes_no_sense_is_refused(folder: Path, tmp_path: Path):
    options = dataclasses.replace(OPTIONS, amortise=Amortise(500))
    with pytest.raises(jj.ArgumentError, match="exact_sample=500: the input has 121 records"):
        run_amortised(tiny_encoder(), open_source(folder), tmp_path, Silent(), options)
    with pytest.raises(jj.ArgumentError, match="20 are too few"):
        Amortise(20)
    with pytest.raises(jj.ArgumentError, match=r"singular_values.*amortised job has none"):
        JobOptions(columns=("singular_values",), amortise=Amortise())
    with pytest.raises(jj.ArgumentError, match=r"between=.* must be two quantiles"):
        Amortise(tail=(0.5, 0.2))


def test_a_dry_run_tells_what_the_stages_take(folder: Path, output: Path, tmp_path: Path):
    source = open_source(folder)
    plan = dry_run(tiny_encoder(), source, tmp_path / "out", OPTIONS, pilot_seconds=0.2)
    assert not (tmp_path / "out").exists()
    assert plan.stages is not None
    assert plan.pilot is not None
    escalated = round(ESCALATED * (RECORDS + 1))
    assert (plan.stages.sample, plan.stages.escalated, plan.reads) == (SAMPLE, escalated, 121 + 2 * SAMPLE + escalated)
    forward = plan.stages.forward.seconds(121 + SAMPLE)
    assert plan.seconds == pytest.approx(plan.pilot.seconds(SAMPLE + escalated) + forward)
    console = Console(width=160)
    with console.capture() as capture:
        print_dry_run(console, plan)
    assert f"80 scored exactly, to fit on; 121 predicted; then scored exactly: about {escalated}" in capture.get()
    done = dry_run(tiny_encoder(), source, output, OPTIONS)
    assert (done.pilot, done.stages, done.seconds) == (None, None, 0.0)
    with pytest.raises(jj.ArgumentError, match="exact_sample=500: the input has 121 records"):
        dry_run(tiny_encoder(), source, tmp_path, dataclasses.replace(OPTIONS, amortise=Amortise(500)))


def test_the_stages_of_a_fitted_predictor_or_a_recall(output: Path):
    head = Amortised.load(output / "predictor", tiny_encoder())
    pilot = Pilot(100, 0.0, 1.0, 50.0, 100.0, 40.0, 2000.0, 10, 2)
    fitted = Stages.of(Amortise(predictor=head, tail=(0.4, 0.6)), 1000, pilot)
    assert (fitted.sample, fitted.escalated, fitted.exact) == (0, 200, 200)
    asked = Stages.of(Amortise(predictor=head, escalate=0.1, recall=0.9), 1000, pilot)
    assert (asked.escalated, asked.exact) == (None, 0)


def test_the_command(folder: Path, tmp_path: Path):
    save_encoder(tiny_encoder(), tmp_path / "model")
    common = [folder, "--model", tmp_path / "model", "--output", tmp_path / "out", "--workers", "0"]
    refused = run_score(*common, "--escalate", "0.1")
    assert refused.returncode != 0
    assert "--escalate is for amortised scores: give --method amortised" in refused.stderr
    amortised = ["--method", "amortised", "--exact-sample", str(SAMPLE), "--escalate", str(ESCALATED)]
    done = run_score(*common, *amortised, "--save", "embedding", "--processes", "2")
    assert done.returncode == 0, done.stderr
    found = pq.read_table(tmp_path / "out" / "scores")
    assert found.num_rows == RECORDS
    assert found["embedding"].null_count == 0
    assert set(found["method"].to_pylist()) == {"exact", "amortised"}
