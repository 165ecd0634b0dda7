"""Parts of a batch at the same time, on a CPU, give what they give one at a time."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import jepa_jax as jj
from jepa_jax.scoring.concurrency import concurrency_of, part_size

pytestmark = pytest.mark.skipif(concurrency_of(2, "cpu") < 2, reason="one core does one thing at a time")


@pytest.mark.parametrize(("batch", "at_once", "size"), [(16, 2, 8), (7, 2, 1), (9, 2, 3), (1, 4, 1), (12, 4, 3)])
def test_parts_are_equal_and_enough_for_all(batch, at_once, size):
    assert part_size(batch, at_once) == size


def test_images_score_the_same_concurrently():
    encoder = jj.load_encoder("jepa-tiny")
    batch = np.random.default_rng(0).standard_normal((6, 32, 32, 3)).astype(np.float32)
    batch[4, 0, 0, 0] = np.nan
    scorer, one_by_one = jj.Scorer(encoder), jj.Scorer(encoder, images_per_step=1)
    program = scorer.program(batch)
    assert program.at_once == concurrency_of(6, "cpu")
    assert one_by_one.program(batch).at_once == 1
    found, expected = scorer(batch), one_by_one(batch)
    for name in ("score", "score_error", "listing_score", "singular_values", "embedding", "level"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert np.isnan(found.score[4])
    assert found.log_volume_rank == expected.log_volume_rank

    # Memory for one part alone: one at a time, nothing else changes.
    tight = jj.Scorer(encoder, memory=one_by_one.program(batch).peak_bytes * 3 // 2)
    assert tight.program(batch).at_once == 1


def test_batches_at_the_same_time_share_the_threads():
    encoder = jj.load_encoder("jepa-tiny")
    batches = np.random.default_rng(1).standard_normal((6, 4, 32, 32, 3)).astype(np.float32)
    scorer = jj.Scorer(encoder)
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda batch: np.asarray(scorer(batch).score), batches))
    np.testing.assert_array_equal(together, [scorer(batch).score for batch in batches])
