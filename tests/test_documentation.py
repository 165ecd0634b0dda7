"""The documentation builds without a warning, its links resolve, and its notebooks run and hold no outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path.relative_to(DOCS).with_suffix("").as_posix() for kind in ("*.md", "*.ipynb") for path in DOCS.rglob(kind)
)
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))
RUN = ("tutorial", "mathematics", "notebooks/photographs", "notebooks/own-encoder")
"""Pages whose outputs are made by the build."""


def build(directory: Path, execution: str) -> Path:
    """The folder of the built pages; a warning is an error.

    Args:
        directory: for everything that the build writes.
        execution: of the notebooks, as Sphinx's ``nb_execution_mode``.
    """
    pages = directory / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-b", "html"]
    command += ["-D", f"nb_execution_mode={execution}", "-d", str(directory / "doctrees"), str(DOCS), str(pages)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # what runs here is compiled here
        "XDG_CACHE_HOME": str(directory / "cache"),
    }
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return pages


class Page(HTMLParser):
    """What a built page links to, and the places in it that can be linked to.

    Attributes:
        links: every ``href``, as it stands.
        places: every ``id``.
    """

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            if name == "href" and value and tag == "a":
                self.links.append(value)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """Every built page by its place; notebooks without what they print."""
    folder = build(tmp_path_factory.mktemp("documentation"), "off")
    return {path.resolve(): Page(path.read_text()) for path in folder.rglob("*.html")}


def test_every_page_is_reachable(pages: dict[Path, Page]):
    index = next(path for path in pages if path.name == "index.html")
    seen, ahead = {index}, [index]
    while ahead:
        here = ahead.pop()
        for link in pages[here].links:
            there = (here.parent / unquote(urlsplit(link).path)).resolve()
            if not urlsplit(link).scheme and there in pages and there not in seen:
                seen.add(there)
                ahead.append(there)
    assert {index.parent / f"{name}.html" for name in PAGES} <= seen


def test_every_link_within_the_pages_leads_somewhere(pages: dict[Path, Page]):
    lost = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = there in pages and (not parts.fragment or unquote(parts.fragment) in pages[there].places)
            if not known and not (there.is_file() and there.suffix != ".html"):
                lost.append(f"{path.name}: {link}")
    assert not lost


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(notebook: Path):
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_the_notebooks_run(tmp_path: Path):
    folder = build(tmp_path, "force")
    for name in RUN:
        assert 'class="cell_output' in (folder / f"{name}.html").read_text(), name
