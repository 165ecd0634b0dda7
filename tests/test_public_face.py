"""`import jepa_jax` is written out and lazy: every name is the one of its home, whatever was imported before."""

import ast
import importlib
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest

import jepa_jax as jj

ORDERS = (
    "import jepa_jax as jj; jj.jacobian; import jepa_jax.jacobian.options",
    "import jepa_jax.jacobian.options, jepa_jax as jj",
    "from jepa_jax import jacobian; import jepa_jax as jj; assert jj.jacobian is jacobian",
    "from jepa_jax import *; import jepa_jax as jj; assert jj.jacobian is jacobian; score, Encoder, ArgumentError",
)
"""After each of them, `jj.jacobian` must be the function."""


def written_out() -> tuple[dict[str, str], dict[str, str]]:
    """Name to module of the face: as type checkers see it, and as Python imports it."""
    tree = ast.parse(Path(jj.__file__).read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    (table,) = (node for node in ast.walk(tree) if isinstance(node, ast.Dict))
    return {alias.name: node.module or "" for node in imports for alias in node.names}, ast.literal_eval(table)


def test_type_checkers_see_the_table():
    seen, table = written_out()
    assert len(table) == 18
    assert seen == table


@pytest.mark.parametrize("name", written_out()[1])
def test_a_name_is_that_of_its_home(name: str):
    value = getattr(jj, name)
    assert value is getattr(importlib.import_module(written_out()[1][name]), name)
    assert not isinstance(value, types.ModuleType)
    assert name in dir(jj)
    assert pickle.loads(pickle.dumps(value)) is value


@pytest.mark.parametrize("order", ORDERS)
def test_the_function_is_never_hidden_by_the_room(order: str):
    program = f"{order}\nassert type(jj.jacobian).__name__ == 'function', jj.jacobian"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'jepa_jax' has no attribute 'jacobain'"):
        _ = jj.jacobain  # pyright: ignore[reportAttributeAccessIssue]


def test_xla_is_quiet_before_jax_is_imported():
    program = "import os, sys, jepa_jax; print('jax' in sys.modules, os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "3"]
