"""What a study leaves behind: its numbers, a page for people, and all that is needed to get them again."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jepa_jax


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
        "commit": _commit(),
        "jepa_jax": jepa_jax.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "date": datetime.now(UTC).date().isoformat(),
    }


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
    ]


def _commit() -> str:
    """Of the checkout that the package runs from; ``+`` where files differ from it."""
    folder = Path(jepa_jax.__file__).parent
    try:
        commands = (["git", "rev-parse", "--short", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
        head, changes = (
            subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "no checkout"
    return head + ("+" if changes else "")
