"""What a study leaves behind: its numbers, a page for people, and all that is needed to get them again."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jepa_jax._version import __version__
from jepa_jax.studies.outputs import commit


def write_record(directory: Path, study: str, results: dict[str, Any], lines: Sequence[str]) -> Path:
    """Write ``STUDY.json`` and ``STUDY.md``; returns the page's path.

    Args:
        directory: made if it is not there.
        study: its name.
        results: plain data.
        lines: the page, in Markdown; the origin is added.
    """
    directory.mkdir(parents=True, exist_ok=True)
    origin = provenance()
    record = {"study": study, **origin, "results": results}
    (directory / f"{study}.json").write_text(json.dumps(record, indent=2) + "\n")
    page = directory / f"{study}.md"
    about = (
        f"Made by `{origin['command']}` with jepa_jax {origin['jepa_jax']} ({origin['commit']}), jax {origin['jax']}, "
        f"{origin['device']}, {origin['date']}."
    )
    page.write_text("\n".join([*lines, "", about]) + "\n")
    return page


def provenance() -> dict[str, str]:
    """Command, commit, versions, device, date."""
    return {
        "command": " ".join(["jepa-jax", *sys.argv[1:]]),
        "commit": commit() or "no checkout",
        "jepa_jax": __version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "date": datetime.now(UTC).date().isoformat(),
    }
