"""What a job would take, multiplied out, and checked against the table of a real one."""

from pathlib import Path

import numpy as np
import pytest
from jobs_shared import Silent
from PIL import Image

import jepa_jax as jj
from benchmarks.pipeline import small_encoder
from jepa_jax.costs.forecast import Forecast, bytes_of_a_row
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.jobs.output.schema import score_schema
from jepa_jax.scoring.options import ScoreOptions


def test_hours_and_cores_are_multiplied_out():
    job = Forecast(3.6e6, 4, 50, row=10, decoded=25)
    assert (job.hours, job.device_hours) == (5, 20)
    assert (job.images_per_second, job.decoding_cores) == (200, 8)


def test_of_amortised_scores_each_stage_takes_its_time():
    job = Forecast(3.6e6, 4, 50, row=10, decoded=250, exact=720_000, forward_rate=500)
    assert (job.hours, job.decodings) == (1.5, 4_320_000)  # 1 h exactly, and half an hour of forward passes
    assert not job.decoding_decides
    held_up = Forecast(3.6e6, 4, 50, row=10, decoded=250, cores=2, exact=720_000, forward_rate=500)
    assert (held_up.hours, held_up.decoding_decides) == (3.0, True)  # 500 pictures a second are decoded
    with pytest.raises(jj.ArgumentError, match="belong together"):
        Forecast(10, 1, 1, 10, exact=3)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_is_positive(rate: float):
    with pytest.raises(jj.ArgumentError, match=f"rate={rate} must be positive"):
        Forecast(10, 1, rate, 10)


def test_optional_columns_are_most_of_a_table():
    with_embedding = score_schema(384, gaussian=False, columns=("embedding",))
    without = score_schema(384, gaussian=False, columns=())
    assert bytes_of_a_row(with_embedding) - bytes_of_a_row(without) == pytest.approx(384 * 4, rel=0.1)


def test_a_row_is_as_long_as_in_a_real_table(tmp_path: Path):
    folder, count = tmp_path / "in" / "train" / "n01440764", 1024
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"n01440764_{number:05d}.JPEG")
    options = JobOptions(ScoreOptions("float32", spectrum=False), shard_size=count)
    encoder = small_encoder()
    run_job(encoder, open_source(tmp_path / "in"), tmp_path / "out", Silent(), options)
    (part,) = (tmp_path / "out" / "scores").glob("part-*.parquet")
    schema = score_schema(encoder.spec.embedding_size, encoder.spec.gaussian_embedding, (), score_only=True)
    assert bytes_of_a_row(schema) == pytest.approx(part.stat().st_size / count, rel=0.2)
