"""Damaged inputs, in few cases; `python -m tests.fuzz npz csv jsonl txt tar ...` does it at length."""

from pathlib import Path

import pytest
from fuzzing import Target, fuzz
from targets_inputs import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_inputs(target: Target, tmp_path: Path):
    outcome = fuzz(target, tmp_path, times=40, seed=0)
    assert outcome.taken + outcome.refused.total() == 40
    assert outcome.refused
