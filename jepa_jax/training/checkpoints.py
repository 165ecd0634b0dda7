"""Checkpoints of a run's state: Orbax trees, whole or absent, the last few kept."""

from __future__ import annotations

import shutil
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from jepa_jax.errors import CheckpointError
from jepa_jax.paths import AnyPath
from jepa_jax.training.state import State

KEPT = 2


def save_state(directory: AnyPath, state: State) -> None:
    """Write ``directory/<step>``; Orbax renames it into place when it is whole. Older ones go, but the last few."""
    step = int(state["step"])
    ocp.save(str(directory / f"{step:08d}"), _named(state))
    for old in saved_steps(directory)[:-KEPT]:
        shutil.rmtree(directory / f"{old:08d}")


def saved_steps(directory: AnyPath) -> list[int]:
    """Steps of the whole checkpoints, ascending."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def restore_state(directory: AnyPath, step: int, like: State) -> State:
    """Read a state back; ``like`` (arrays or shapes) says what is expected, and where it goes.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another structure.
    """
    path = directory / f"{step:08d}"
    wanted = _named(like)
    try:
        target = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in wanted.items()}
        found = ocp.load(str(path), target)
    except Exception as error:  # an unreadable data file is a bare Exception of many lines to Orbax
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path} is damaged or of another structure ({reason}); remove it.") from error
    leaves = [found[name] for name in wanted]
    for name, leaf in zip(wanted, leaves, strict=True):
        if leaf.shape != wanted[name].shape or leaf.dtype != wanted[name].dtype:
            raise CheckpointError(f"{path}: {name} is {leaf.dtype}{leaf.shape}, not as this config has it; remove it.")
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(state: Any) -> dict[str, Any]:
    """Leaves by their path: optax's nested tuples are no matter to Orbax then."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in jax.tree.leaves_with_path(state)
    }
