"""Damaged weights and descriptions are loaded, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import Target, fuzz
from targets_weights import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_files(target: Target, tmp_path: Path):
    outcome = fuzz(target, tmp_path, times=30, seed=0)
    assert outcome.taken
    assert outcome.refused.total()
