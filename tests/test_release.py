"""The files that name the version, or copy the package, agree with it."""

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest

import jepa_jax as jj

ROOT = Path(__file__).resolve().parents[1]


def test_the_citation_is_of_this_version():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what its schema asks for
    assert citation["version"] == jj.__version__
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["license"] == settings["license"]
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert "2510.05949" in paper["url"]


def test_the_changelog_has_this_version_below_what_is_unreleased():
    titles = re.findall(r"^## \[(.+?)\](?: - (.+))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == ("Unreleased", "")
    assert titles[1][0] == jj.__version__
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert date.fromisoformat(titles[1][1]) == citation["date-released"]


def test_the_image_copies_what_the_build_needs():
    dockerfile = (ROOT / "Dockerfile").read_text()
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [name for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE) for name in line.split()[:-1]]
    assert sorted(copied) == sorted(allowed)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {"pyproject.toml", settings["project"]["readme"], *settings["project"]["license-files"], *build}
    assert set(copied) == needed
    (extras,) = re.findall(r"\.\[(.+)\]", dockerfile)
    assert set(extras.split(",")) <= set(settings["project"]["optional-dependencies"])
