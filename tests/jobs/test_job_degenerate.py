"""What the clip decided, or whose error is not finite, is no score: a flag in Python, a reason in a job."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest
from job_pairs import draw_pictures
from jobs_shared import Silent, failures, table, tiny_encoder

import jepa_jax as jj
from jepa_jax.encoders import Encoder
from jepa_jax.jobs import JobOptions, open_source, run_job
from jepa_jax.jobs.output.columns import why_no_score
from jepa_jax.numerics.precision import Precision
from jepa_jax.scored.reading import read_table

BATCH = np.random.default_rng(0).normal(size=(2, 7)).astype(np.float32)
ROTATION = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0][:, :5].astype(np.float32)


@pytest.mark.parametrize("spectrum", [True, False])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    ("values", "clipped"),
    [
        ([0.0, 0.0, 0.0, 0.0, 0.0], 5),
        ([1e-30] * 5, 5),
        ([1.0, 1.0, 1.0, 1.0, 0.0], 1),
        ([1.0, 1e-7, 1e-7, 1.0, 1.0], 2),
        ([1.0, 1e-2, 1e-3, 2e-6, 3.0], 0),
    ],
)
def test_values_that_the_clip_decided_are_counted(
    values: list[float], clipped: int, precision: Precision, spectrum: bool
):
    kernel = ROTATION * np.array(values, np.float32)
    result = jj.score(lambda x: x @ kernel.astype(x.dtype), BATCH, precision=precision, spectrum=spectrum)
    assert list(result.clipped) == [clipped] * 2
    assert list(np.isfinite(result.score_error)) == [not clipped] * 2
    expected = sum(math.log(max(value, 1e-6)) for value in values)
    np.testing.assert_allclose(result.score, expected, rtol=1e-4)


def test_a_function_with_fewer_inputs_than_outputs_has_no_values_to_clip():
    result = jj.score(lambda x: x @ ROTATION.T, BATCH[:, :5])
    assert list(result.clipped) == [0, 0]
    assert np.all(np.isfinite(result.score_error))


def test_a_clip_that_is_asked_for_is_counted_too():
    result = jj.score(lambda x: x @ (ROTATION * np.array([2, 1e-3, 1e-3, 1, 1], np.float32)), BATCH, eps=0.1)
    assert list(result.clipped) == [2, 2]


def scaled(part: str, factor: float) -> Encoder:
    """The tiny encoder with some of its weights scaled down."""
    encoder = tiny_encoder()

    def leaf(path: tuple, value: jax.Array) -> jax.Array:
        return value * factor if part in jax.tree_util.keystr(path) else value

    return Encoder(encoder.spec, jax.tree_util.tree_map_with_path(leaf, encoder.params))


@pytest.mark.parametrize("options", [{}, {"views": 2}])
@pytest.mark.parametrize(("part", "factor"), [("", 1e-30), ("patch", 0.0), ("patch", 1e-12)])
def test_an_embedding_that_does_not_change_is_a_reason(part: str, factor: float, options: dict, tmp_path: Path):
    source = open_source(draw_pictures(tmp_path / "in", 3))
    summary = run_job(scaled(part, factor), source, tmp_path / "out", Silent(), JobOptions(batch_size=4, **options))
    assert (summary.scored, summary.failed) == (0, 3)
    for reason in failures(tmp_path / "out").values():
        assert "singular values lie below eps=1e-06" in reason or "overflows, or vanishes" in reason
    with pytest.raises(jj.JobError, match="has no scored image"):
        read_table(tmp_path / "out")


def test_a_healthy_job_fails_nothing(tmp_path: Path):
    source = open_source(draw_pictures(tmp_path / "in", 3))
    assert run_job(tiny_encoder(), source, tmp_path / "out", Silent(), JobOptions(batch_size=4)).scored == 3
    assert "clipped" not in table(tmp_path / "out").schema.names


def test_each_reason_says_what_happened():
    row = {"score": np.float32(-3), "score_error": np.float32(0.1), "clipped": np.int32(0), "log_volume_rank": 64}
    assert why_no_score(row, 1e-6) is None
    assert "is nan: the encoder's output" in str(why_no_score(row | {"score": np.float32("nan")}, 1e-6))
    assert "7 of 64 singular values" in str(why_no_score(row | {"clipped": np.int32(7)}, 1e-6))
    assert "off by inf nats" in str(why_no_score(row | {"score_error": np.float32("inf")}, 1e-6))


def test_spectra_that_the_clip_would_decide_are_left_out(tmp_path: Path):
    spectra = np.ones((3, 4), np.float32)
    spectra[1, 2:] = 1e-8
    np.save(tmp_path / "spectra.npy", spectra)
    found = read_table(tmp_path / "spectra.npy")
    assert len(found) == 2
    assert found.failures == ({"key": "spectra/000001", "reason": "of 4 singular values, 2 lie below eps=1e-06"},)
    assert len(read_table(tmp_path / "spectra.npy", null_directions=2)) == 3
    np.save(tmp_path / "spectra.npy", spectra[1:2])
    with pytest.raises(jj.ArgumentError, match=r"every row .* null_directions \(--null-directions\) says how many"):
        read_table(tmp_path / "spectra.npy")
