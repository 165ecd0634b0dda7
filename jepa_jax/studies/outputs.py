"""What a study leaves behind: JSON with versions and the commit, and tables."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from jepa_jax._version import __version__
from jepa_jax.markdown import markdown_lines
from jepa_jax.provenance import commit


def write_json(path: Path, command: str, figures: dict[str, Any]) -> None:
    """Figures beside what made them: the command, versions, and the commit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version(), "jax": jax.__version__, "jepa_jax": __version__}
    document = {"command": command, "commit": commit(), "versions": versions} | figures
    path.write_text(json.dumps(document, indent=1, default=_plain) + "\n")


class Ledger:
    """Finished parts of a study, one JSON object per line, so that a study that is stopped goes on where it was.

    A part is known by a text that names all that decides its figures; delete the file to begin anew.

    Args:
        path: of the file; it may not exist yet.
    """

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith("\n"):  # stopped while writing
            path.write_text("".join(lines[:-1]))
        documents = [json.loads(line) for line in lines if line.endswith("\n")]
        self.parts: dict[str, Any] = {document["part"]: document["figures"] for document in documents}

    def get(self, part: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The part's figures: from the file, or computed and written to it."""
        if part not in self.parts:
            line = json.dumps({"part": part, "figures": compute()}, default=_plain)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(line + "\n")
            self.parts[part] = json.loads(line)["figures"]
        return self.parts[part]


def study_progress(console: Console) -> Progress:
    """A bar for the parts of a study; nothing where the console is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table."""
    names = list(rows[0])
    return "\n".join(markdown_lines(names, ([_cell(row[name]) for name in names] for row in rows))) + "\n"


def rich_table(rows: list[dict[str, Any]], title: str) -> Table:
    """The same for the console."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float | np.floating) else str(value)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
