"""What tensor cores take off: nothing where there are none, and more of longer sums."""

from dataclasses import replace

import pytest

from jepa_jax.encoders import find_spec
from jepa_jax.numerics.precision import LEVELS
from jepa_jax.scoring.cut_off import cut_off

SMALL, LARGE = (find_spec(name).vit for name in ("dinov2-small", "dinov2-large"))


def test_nothing_is_cut_off_without_tensor_cores():
    for platform in ("cpu", "tpu"):
        assert not any(cut_off(platform, level, SMALL) for level in LEVELS)
    assert not any(cut_off("gpu", level, SMALL) for level in ("float32", "float64"))


def test_it_is_what_was_measured_of_a_small_vit():
    # On an H100, in the mean of 24 images, of 383 values each: 0.0080 nats at TF32.
    assert 383 * cut_off("gpu", "tensorfloat32", SMALL) == pytest.approx(0.0080, abs=0.0009)


def test_it_grows_with_sums_and_with_depth():
    small = cut_off("gpu", "float16", SMALL)
    assert cut_off("gpu", "tensorfloat32", SMALL) == pytest.approx(2 * small)
    assert cut_off("gpu", "float16", LARGE) == pytest.approx(2 * 1024 / 384 * small)
    # Short sums, whatever the width.
    as_deep = replace(LARGE, depth=SMALL.depth)
    assert cut_off("gpu", "bfloat16_3x", as_deep) == cut_off("gpu", "bfloat16_3x", SMALL) < small / 10
