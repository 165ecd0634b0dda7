"""What several of these tests begin with."""

from pathlib import Path

import pytest
from small_inputs import picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With three pictures, in its folder ``in``."""
    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / f"in/{i}.png").write_bytes(picture(i))
    return tmp_path
