"""Where benchmarks are, and where their results go."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def dated(name: str) -> Path:
    """The folder of today's results of a kind, made if it is not there."""
    folder = RESULTS / f"{name}-{datetime.now(UTC).date().isoformat()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
