"""Bare singular values from a file, as scored images."""

from __future__ import annotations

import io
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jepa_jax.errors import ArgumentError
from jepa_jax.jobs.output.schema import SAVABLE
from jepa_jax.numerics.float64 import float64_scope
from jepa_jax.parquet import read_parquet
from jepa_jax.paths import AnyPath
from jepa_jax.scored.arrow import matrix, texts
from jepa_jax.scored.table import ScoreTable
from jepa_jax.spectrum import jepa_score
from jepa_jax.spectrum.scores import DEFAULT_EPS


def read_spectra(path: AnyPath, name: str, null_directions: int) -> ScoreTable:
    """A file of singular values [N, K], scored here; see `jepa_jax.scored.reading.read_table`."""
    columns = _read_arrays(path)
    spectra = columns.get("singular_values")
    if spectra is None or spectra.ndim != 2 or not spectra.size:
        found = {name: array.shape for name, array in columns.items()}
        raise ArgumentError(f"{path} must hold singular_values [N, K]; it holds {found}.")
    if not np.all(np.isfinite(spectra)) or spectra.min() < 0:
        raise ArgumentError(f"singular_values of {path} must be finite and not negative.")
    spectra = -np.sort(-spectra.astype(np.float32), axis=1)
    keys = columns.get("key", np.array([f"{name}/{i:06d}" for i in range(len(spectra))], object)).astype(object)
    structural = spectra[:, : spectra.shape[1] - null_directions]
    clipped = np.sum(structural < DEFAULT_EPS, axis=1)
    if clipped.all():
        raise ArgumentError(
            f"every row of singular_values of {path} has values below eps={DEFAULT_EPS:g} ({clipped.min()} or more), "
            "which the clip would decide: null_directions (--null-directions) says how many are zero by construction "
            "(DINOv2: 2)."
        )
    table = ScoreTable(
        name=name,
        origin=str(path.resolve()),
        keys=keys,
        scores={
            "score": log_volume(spectra, null_directions),
            "listing_score": log_volume(spectra, 0),
        },
        null_directions=null_directions,
        singular_values=spectra,
        embedding=columns.get("embedding"),
    )
    reason = f"of {structural.shape[1]} singular values, {{}} lie below eps={DEFAULT_EPS:g}"
    return replace(
        table.take(clipped == 0) if clipped.any() else table,
        failures=tuple({"key": str(keys[i]), "reason": reason.format(clipped[i])} for i in np.flatnonzero(clipped)),
    )


def _read_arrays(path: AnyPath) -> dict[str, np.ndarray]:
    if path.suffix == ".npy":
        return {"singular_values": np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)}
    if path.suffix == ".npz":
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("key", *SAVABLE) if name in arrays}
    if path.suffix == ".parquet":
        table = read_parquet(path)
        arrays = {name: matrix(table, name) for name in SAVABLE}
        keys = {"key": texts(table["key"])} if "key" in table.column_names else {}
        return keys | {name: array for name, array in arrays.items() if array is not None}
    raise ArgumentError(f"{path} must end in .npy, .npz or .parquet, or be a directory of jepa-jax score.")


def log_volume(singular_values: np.ndarray, null_directions: int, eps: float = DEFAULT_EPS) -> np.ndarray:
    """`jepa_jax.jepa_score` of spectra [N, K] in float64: [N], nats."""
    with float64_scope(True):
        return np.asarray(jepa_score(jnp.asarray(singular_values, jnp.float64), null_directions, eps))
