"""Where figures come from."""

import subprocess
from pathlib import Path

import pytest

from jepa_jax import provenance


def git(*arguments: str, at: Path):
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=at, check=True)


def test_the_commit_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    git("init", "-q", at=tmp_path)
    (tmp_path / "file").write_text("a")
    git("add", "file", at=tmp_path)
    git("commit", "-q", "-m", "First", at=tmp_path)
    monkeypatch.setattr(provenance, "HOME", tmp_path)
    commit = provenance.commit()
    assert commit is not None
    assert len(commit) == 12
    (tmp_path / "file").write_text("b")
    assert provenance.commit() == f"{commit}-dirty"


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not even where its environment lies within somebody's repository: that one's commit is not the package's."""
    git("init", "-q", at=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "Theirs", at=tmp_path)
    installed = tmp_path / "venv" / "site-packages"
    installed.mkdir(parents=True)
    monkeypatch.setattr(provenance, "HOME", installed)
    monkeypatch.delenv(provenance.COMMIT_VARIABLE, raising=False)
    assert provenance.commit() is None
    assert provenance.origin()["commit"] == "no checkout"
