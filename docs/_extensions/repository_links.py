"""Links from a page to files of the repository that are no pages: the built pages name the file, if it is there.

Notebooks are left alone: they lie a folder deeper, so that what looks so there is a link to a page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.util import logging

LINK = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)\)")
ROOT = Path(__file__).resolve().parents[2]


def name_files(app: Any, page: str, source: list[str]) -> None:
    """Put text and path for each such link; a file that is not there is a warning."""
    if Path(app.env.doc2path(page)).suffix != ".md":
        return

    def named(match: re.Match[str]) -> str:
        text, path = match.groups()
        if not (ROOT / path).exists():
            logging.getLogger(__name__).warning("%s: no %s in the repository", page, path)
        return f"{text} (`{path}`)"

    source[0] = LINK.sub(named, source[0])


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.connect("source-read", name_files)
    return {"parallel_read_safe": True}
