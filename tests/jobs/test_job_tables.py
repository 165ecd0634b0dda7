"""The output as other tools read it: one table in Arrow, DuckDB, Polars and pandas, typed as documented."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from jobs_shared import Silent, tiny_encoder
from makes import TINY as SPEC
from PIL import Image

import jepa_jax as jj
from jepa_jax.encoders import Encoder
from jepa_jax.jobs import JobOptions, open_source, run_job

K = SPEC.embedding_size


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of twenty pictures in three parts, with both vectors in float16."""
    folder = tmp_path_factory.mktemp("in")
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (60, 70, 3), np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "broken.png").write_bytes(b"broken")
    target = tmp_path_factory.mktemp("out")
    options = JobOptions(batch_size=8, shard_size=8, columns=("singular_values", "embedding"), save_dtype="float16")
    run_job(tiny_encoder(), open_source(folder), target, Silent(), options)
    return target


@pytest.mark.parametrize("columns", [None, ["key", "score"]])
def test_a_program_that_ends_right_after_reading_ends_in_peace(columns: list[str] | None, output: Path):
    program = f"""
import os

from jepa_jax.paths import to_path
from jepa_jax.parquet import read_parquet

statuses = []
for _ in range(20):
    if not (child := os.fork()):
        read_parquet(to_path({str(output / "scores" / "part-00000.parquet")!r}), {columns})
        break
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    print(statuses)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{[0] * 20}\n", done.stderr


def test_the_schema_says_what_each_column_is(output: Path):
    schema = pq.read_schema(output / "scores" / "part-00000.parquet")
    scores = ["score", "score_error", "precision", "listing_score", "log_volume_rank"]
    assert schema.names == ["key", "place", "bytes", *scores, "embedding", "singular_values"]
    assert schema.field("embedding").type == pa.list_(pa.float16(), K)
    assert all(b"doc" in field.metadata for field in schema)


def test_every_reader_sees_one_table(output: Path, tmp_path: Path):
    folder = str(output / "scores")
    import duckdb
    import pandas as pd
    import polars as pl
    from datasets import load_dataset

    arrow = ds.dataset(sorted(map(str, (output / "scores").glob("part-*.parquet")))).to_table()
    expected = [f"{i:02d}.png" for i in range(20)]
    assert arrow["key"].to_pylist() == expected
    ordered = duckdb.sql(f"select * from '{folder}/*.parquet' order by key")
    assert ordered is not None
    frames = {
        "DuckDB": ordered.to_arrow_table().to_pylist(),
        "Polars": pl.scan_parquet(folder).collect().to_dicts(),
        "pandas": pd.read_parquet(folder).to_dict("records"),
    }
    assert os.listdir(output / "_claims") == []
    assert load_dataset("parquet", data_dir=folder, cache_dir=str(tmp_path))["train"]["key"][:] == expected
    assert all(Path(row["place"]).is_file() and row["place"].endswith(row["key"]) for row in frames["Polars"])
    for name, rows in frames.items():
        assert [row["key"] for row in rows] == expected, name
        for column in ("score", "listing_score", "embedding", "singular_values"):
            found = np.array([row[column] for row in rows], np.float64)
            assert np.array_equal(found, np.array(arrow[column].to_pylist(), np.float64)), (name, column)


def test_half_precision_is_the_rounded_whole(output: Path, tmp_path: Path):
    columns = ("singular_values", "embedding")
    folder = tmp_path / "in"
    folder.mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8))
    picture.save(folder / "00.png")
    run_job(tiny_encoder(), open_source(folder), tmp_path / "out", Silent(), JobOptions(batch_size=8, columns=columns))
    whole = pq.read_table(tmp_path / "out" / "scores" / "part-00000.parquet")
    half = pq.read_table(output / "scores" / "part-00000.parquet").slice(0, 1)
    assert whole["embedding"].type == pa.list_(pa.float32(), K)
    for column in columns:
        # One rounding to 11 bits: 2^-11 of each value, or of the smallest normal number.
        expected = np.array(whole[column].to_pylist())
        np.testing.assert_allclose(np.array(half[column].to_pylist(), float), expected, rtol=2**-11, atol=2**-25)


def test_another_preprocessing_or_dtype_is_refused_by_name(output: Path, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (60, 60), (10, 200, 30)).save(folder / "a.png")
    source, columns = open_source(folder), ("embedding",)
    options = JobOptions(batch_size=8, columns=columns)
    run_job(tiny_encoder(), source, tmp_path / "out", Silent(), options)
    spec = dataclasses.replace(SPEC, preprocess=dataclasses.replace(SPEC.preprocess, interpolation="bilinear"))
    with pytest.raises(jj.JobError, match=r"preprocessing: .*'bicubic'.* there, .*'bilinear'.* now"):
        run_job(Encoder(spec, tiny_encoder().params), source, tmp_path / "out", Silent(), options)
    with pytest.raises(jj.JobError, match="save_dtype: 'float32' there, 'float16' now"):
        run_job(tiny_encoder(), source, tmp_path / "out", Silent(), dataclasses.replace(options, save_dtype="float16"))


def test_a_batch_that_does_not_fit_names_a_smaller_one(tmp_path: Path):
    Image.new("RGB", (60, 60), (10, 200, 30)).save(tmp_path / "a.png")
    # More bytes than a processor can address, so that this fails at once on any machine.
    options = JobOptions(batch_size=10**10)
    with pytest.raises(jj.JobError, match=r"memory ran out in a batch of 10000000000 images.*--batch-size 5000000000"):
        run_job(tiny_encoder(), open_source(tmp_path), tmp_path / "out", Silent(), options)
    assert (
        run_job(tiny_encoder(), open_source(tmp_path), tmp_path / "out", Silent(), JobOptions(batch_size=8)).scored
        == 1
    )
