"""jepa_jax as a later version might be: a copy in which dataclasses have got another field, with a default."""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jepa_jax

FIELD = "added_later"


def grown_package(folder: Path, classes: Sequence[type]) -> Path:
    """Copy the package into a folder and give each class a field ``added_later: int = 7``.

    Returns:
        The folder, for `run_with`.
    """
    package = Path(jepa_jax.__file__).parent
    copy = folder / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for cls in classes:
        source = copy / Path(inspect.getfile(cls)).relative_to(package)
        text = source.read_text()
        (found,) = (x for x in ast.parse(text).body if isinstance(x, ast.ClassDef) and x.name == cls.__name__)
        last = [line for line in found.body if isinstance(line, ast.AnnAssign)][-1]
        lines = text.splitlines(keepends=True)
        lines.insert(last.end_lineno or 0, f"    {FIELD}: int = 7\n")
        source.write_text("".join(lines))
    return folder


def run_with(folder: Path, program: str, *arguments: str | Path) -> None:
    """Run a Python program with that package, and with what tests share."""
    path = os.pathsep.join([str(folder), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
