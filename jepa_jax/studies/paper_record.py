"""What a study leaves behind: its numbers, a page for people, and all that is needed to get them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa_jax.provenance import origin


def write_record(directory: Path, study: str, results: dict[str, Any], lines: Sequence[str]) -> Path:
    """Write ``STUDY.json`` and ``STUDY.md``; returns the page's path.

    Args:
        directory: made if it is not there.
        study: its name.
        results: plain data.
        lines: the page, in Markdown; the origin is added.
    """
    directory.mkdir(parents=True, exist_ok=True)
    made = origin()
    record = {"study": study, **made, "results": results}
    (directory / f"{study}.json").write_text(json.dumps(record, indent=2) + "\n")
    page = directory / f"{study}.md"
    about = (
        f"Made by `{made['command']}` with jepa_jax {made['jepa_jax']} ({made['commit']}), jax {made['jax']}, "
        f"{made['device']}, {made['date']}."
    )
    page.write_text("\n".join([*lines, "", about]) + "\n")
    return page
