"""Damaged videos: a clip or one reason, soon."""

from pathlib import Path

import pytest
from fuzzing import Target, fuzz
from targets_videos import TARGETS

TIMES = 30


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_damaged_video_is_used_or_refused_in_one_sentence(target: Target, tmp_path: Path):
    outcome = fuzz(target, tmp_path, times=TIMES, seed=0)
    assert outcome.taken
    assert outcome.refused.total() > TIMES // 10
