"""The parity table in docs/weights.md is what was measured, of every family, and still true."""

import json

import parity_table
import pytest

from convert_weights.export import FAMILIES
from jepa_jax.encoders import ENCODERS

LIMITS = {
    "embedding_float32": 1e-5,
    "embedding_float64": 1e-10,
    "jacobian_float32": 1e-5,
    "jacobian_float64": 1e-10,
    "listing_score_float64_nats": 1e-8,
    "score_float32_nats": 0.01,
}


@pytest.fixture(scope="module")
def record() -> dict[str, dict[str, float]]:
    return json.loads(parity_table.RECORD.read_text())


def test_the_page_shows_what_was_recorded(record: dict[str, dict[str, float]]):
    match = parity_table.SECTION.search(parity_table.PAGE.read_text())
    assert match, "the page has no parity section"
    assert match[0] == match[1] + parity_table.table(record) + match[2]


def test_every_family_is_recorded_within_its_limits(record: dict[str, dict[str, float]]):
    assert list(record) == list(parity_table.MODELS)
    assert {ENCODERS[name].family for name in record} == set(FAMILIES)
    for errors in record.values():
        assert errors.keys() == LIMITS.keys()
        assert all(errors[name] <= limit for name, limit in LIMITS.items())


def test_a_recorded_model_still_measures_so(record: dict[str, dict[str, float]]):
    # Another processor rounds in another order, which moves an error by a small factor; a bug moves it by many digits.
    # A listing is a sum of 384 logs of size 8 or less: 384 x 8 rounding units of float64 are 3e-13 nats.
    for name, error in parity_table.measure("dinov2-small").items():
        least = 3e-13 if name == "listing_score_float64_nats" else 1e-15
        assert error <= 10 * record["dinov2-small"][name] + least, name
