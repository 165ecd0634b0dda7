"""A job that goes on with another version of a library."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_pairs import draw_pictures
from jobs_shared import Silent, table, tiny_encoder

import jepa_jax as jj
from jepa_jax.jobs import JobOptions, open_source, run_job

OPTIONS = JobOptions(batch_size=4, shard_size=2)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A job of six parts, of which one is missing, as an earlier Pillow and JAX began it."""
    output = tmp_path / "out"
    run_job(tiny_encoder(), open_source(draw_pictures(tmp_path / "in")), output, Silent(), OPTIONS)
    (output / "scores" / "part-00004.parquet").unlink()
    manifest = json.loads((output / "manifest.json").read_text())
    manifest["pinned"] |= {"pillow": "11.0.0", "jax": "0.10.0"}
    (output / "manifest.json").write_text(json.dumps(manifest))
    return output


def test_where_the_scores_stay_the_job_goes_on_and_says_so(begun: Path):
    source = open_source(begun.parent / "in")
    assert run_job(tiny_encoder(), source, begun, Silent(), OPTIONS).resumed == 10
    manifest = json.loads((begun / "manifest.json").read_text())
    (upgrade,) = manifest["upgrades"]
    assert (upgrade["rows_compared"], manifest["complete"], len(table(begun))) == (10, True, 12)
    assert upgrade["versions"]["pillow"] == ["11.0.0", manifest["pinned"]["pillow"]]
    assert 0 <= upgrade["largest_difference_nats"] <= 2 * max(table(begun)["score_error"].to_pylist())
    assert run_job(tiny_encoder(), source, begun, Silent(), OPTIONS).resumed == 12  # and asks no more
    assert json.loads((begun / "manifest.json").read_text())["upgrades"] == [upgrade]


def test_where_a_score_is_another_one_it_is_refused(begun: Path):
    part = begun / "scores" / "part-00003.parquet"
    rows = pq.read_table(part)
    moved = pa.array([score + 0.1 for score in rows["score"].to_pylist()])
    pq.write_table(rows.set_column(rows.schema.get_field_index("score"), rows.schema.field("score"), moved), part)
    manifest = (begun / "manifest.json").read_text()
    with pytest.raises(jj.JobError, match=r"Pillow 11\.0\.0 -> .* is 0\.1 nats off.*Install the earlier versions"):
        run_job(tiny_encoder(), open_source(begun.parent / "in"), begun, Silent(), OPTIONS)
    assert (begun / "manifest.json").read_text() == manifest


def test_another_version_of_this_package_is_refused(begun: Path):
    manifest = json.loads((begun / "manifest.json").read_text())
    manifest["pinned"]["jepa_jax"] = "0.0.1"
    (begun / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(jj.JobError, match=r"belongs to another job \(jepa_jax: '0\.0\.1' there"):
        run_job(tiny_encoder(), open_source(begun.parent / "in"), begun, Silent(), OPTIONS)
