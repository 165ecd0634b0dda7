"""Name tables: which source tensor becomes which parameter, of which shape, in which layout.

A table is complete by construction: every parameter of the architecture has exactly one row, and every
tensor of the source has a row or is listed as left out on purpose. Anything else is an error. Read the other
way round, the same table writes our parameters under the source's names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from convert_weights.readers import TensorReader, some
from jepa_jax.encoders import ViTSpec
from jepa_jax.encoders.parameters import Params, named_arrays, parameter_shapes
from jepa_jax.encoders.specs import KernelDtype
from jepa_jax.errors import CheckpointError

Layout = Literal["values", "linear", "patches", "tubelets", "masked"]
"""``values``: the same numbers in the same order, axes of length 1 aside; several sources one after another.
``linear``: [out, in] to [in, out]; several sources side by side. ``patches``: [d, 3, p, p] to [p * p * 3, d].
``tubelets``: [d, 3, t, p, p] to [t * p * p * 3, d].
``masked``: biases of query, key and value, and a mask that they are multiplied with, [3d] each, to what is left of
query and value, [2d]."""

LeftOut = Mapping[str, str]
"""Source tensors that are not needed, each with the reason. A name that ends in a dot stands for all below it."""

FLOATS = ("float32", "float16", "bfloat16")
"""Source dtypes that widen to float32 without loss."""


@dataclass(frozen=True)
class Row:
    """One parameter and where it comes from.

    Attributes:
        target: our dotted name, such as ``blocks.0.attention.qkv.kernel``.
        sources: the tensors it is made of, in order.
        shape: the shape of each of them.
        layout: how they become ours.
    """

    target: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    layout: Layout = "values"


def check_source(reader: TensorReader, rows: Sequence[Row], left_out: LeftOut) -> None:
    """Compare a source's header with a table, before any tensor is read.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another shape, or of an unfit dtype.
    """
    _check_names(reader, rows, left_out)
    for row in rows:
        for name in row.sources:
            info = reader.describe(name)
            if info.shape != row.shape:
                shape = str(info.shape) if len(info.shape) < 9 else f"of {len(info.shape)} axes"
                raise CheckpointError(f"{reader.path}: tensor {name} has shape {shape}, expected {row.shape}.")
            if info.dtype not in FLOATS:
                raise CheckpointError(
                    f"{reader.path}: tensor {name} has dtype {info.dtype}, expected one of {', '.join(FLOATS)}; "
                    "save the weights in one of these."
                )


def import_params(
    reader: TensorReader, rows: Sequence[Row], spec: ViTSpec, kernel_dtype: KernelDtype = "float32"
) -> Params:
    """Read every row of a table, one tensor at a time.

    Args:
        reader: the source, as `check_source` passed it.
        rows: its table.
        spec: the architecture, whose parameters the rows must cover exactly.
        kernel_dtype: what kernels become, rounded to nearest; everything else becomes float32.

    Returns:
        Nested parameters.
    """
    wanted = dict(named_arrays(parameter_shapes(spec, kernel_dtype)))
    if sorted(row.target for row in rows) != sorted(wanted):
        raise AssertionError(f"table and architecture differ: {set(wanted) ^ {row.target for row in rows}}")
    params: Params = {}
    for row in rows:
        leaf = wanted[row.target]
        # A copy in float32, so that no file stays mapped for a parameter's sake.
        arrays = [reader.read(name).astype(np.float32) for name in row.sources]
        try:
            array = to_ours(arrays, row.layout).reshape(leaf.shape)
        except CheckpointError as error:
            raise CheckpointError(f"{reader.path}: {error} ({', '.join(row.sources)}); is it another model?") from None
        _assign(params, row.target, jnp.asarray(array.astype(leaf.dtype)))
    return params


def export_tensors(params: Params, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Our parameters as the tensors that a table reads, under their names and in the stored dtypes."""
    ours = dict(named_arrays(params))
    tensors: dict[str, np.ndarray] = {}
    for row in rows:
        arrays = to_theirs(np.asarray(ours[row.target]), row.layout, row.shape, len(row.sources))
        tensors |= dict(zip(row.sources, arrays, strict=True))
    return tensors


def to_ours(arrays: Sequence[np.ndarray], layout: Layout) -> np.ndarray:
    """Source tensors in our layout."""
    if layout == "patches":
        (kernel,) = arrays
        return kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0])
    if layout == "tubelets":
        (kernel,) = arrays
        return kernel.transpose(2, 3, 4, 1, 0).reshape(-1, kernel.shape[0])
    if layout == "masked":
        query, key, value = np.split(np.prod(arrays, axis=0), 3)
        if np.any(key != 0):
            raise CheckpointError("a mask leaves keys a bias")
        return np.concatenate([query, value])
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=0)
    return joined.T if layout == "linear" else joined


def to_theirs(array: np.ndarray, layout: Layout, shape: tuple[int, ...], count: int) -> list[np.ndarray]:
    """The inverse of `to_ours`: ``count`` source tensors of one shape, from a parameter in our layout."""
    if layout == "patches":
        width, channels, side, _ = shape
        return [np.ascontiguousarray(array.reshape(side, side, channels, width).transpose(3, 2, 0, 1))]
    if layout == "tubelets":
        width, channels, frames, side, _ = shape
        whole = array.reshape(frames, side, side, channels, width)
        return [np.ascontiguousarray(whole.transpose(4, 3, 0, 1, 2))]
    if layout == "masked":
        query, value = np.split(array, 2)
        none, all_of_it = np.zeros_like(query), np.ones_like(query)
        return [np.concatenate([query, none, value]), np.concatenate([all_of_it, none, all_of_it])]
    joined = array.T if layout == "linear" else array
    return [np.ascontiguousarray(part) for part in joined.reshape(count, *shape)]


def left_out_names(reader: TensorReader, rows: Sequence[Row], left_out: LeftOut) -> dict[str, list[str]]:
    """What a source holds beyond a table, sorted by the reason for which it is not needed."""
    needed = {name for row in rows for name in row.sources}
    found: dict[str, list[str]] = {}
    for name in sorted(set(reader.names()) - needed):
        entry = next(entry for entry in left_out if name == entry or (entry.endswith(".") and name.startswith(entry)))
        found.setdefault(left_out[entry], []).append(name)
    return found


def _check_names(reader: TensorReader, rows: Sequence[Row], left_out: LeftOut) -> None:
    needed = {name for row in rows for name in row.sources}
    present = set(reader.names())
    below = tuple(name for name in left_out if name.endswith("."))
    missing = sorted(needed - present)
    extra = sorted(name for name in present - needed - set(left_out) if not name.startswith(below))
    if missing or extra:
        raise CheckpointError(
            f"{reader.path} does not hold the tensors of this architecture: "
            f"{_some('missing', missing)}{' and ' if missing and extra else ''}{_some('unknown', extra)}. "
            "Is it another model, a fine-tuned head, or an incomplete download?"
        )


def _some(what: str, names: list[str]) -> str:
    if not names:
        return ""
    return f"{len(names)} {what} ({some(names)})"


def _assign(params: Params, target: str, value: Any) -> None:
    *parents, last = target.split(".")
    for part in parents:
        params = params.setdefault(_key(part), {})
    params[_key(last)] = value


def _key(part: str) -> str | int:
    return int(part) if part.isdigit() else part


def linear(target: str, sources: Sequence[str], outputs: int, inputs: int, bias: bool = True) -> list[Row]:
    """Rows of one linear layer, of which several sources may each hold a part of ``outputs`` outputs.

    ``sources`` are prefixes, to which ``.weight`` and ``.bias`` are added.
    """
    rows = [Row(f"{target}.kernel", tuple(f"{s}.weight" for s in sources), (outputs, inputs), "linear")]
    if bias:
        rows.append(Row(f"{target}.bias", tuple(f"{s}.bias" for s in sources), (outputs,)))
    return rows


def layer_norm(target: str, source: str, width: int) -> list[Row]:
    """Rows of one LayerNorm."""
    return [
        Row(f"{target}.scale", (f"{source}.weight",), (width,)),
        Row(f"{target}.bias", (f"{source}.bias",), (width,)),
    ]


def patch_projection(source: str, spec: ViTSpec) -> list[Row]:
    """Rows of the patch embedding's convolution."""
    shape = (spec.width, 3, spec.patch_size, spec.patch_size)
    rows = [Row("patch_embedding.projection.kernel", (f"{source}.weight",), shape, "patches")]
    if spec.patch_bias:
        rows.append(Row("patch_embedding.projection.bias", (f"{source}.bias",), (spec.width,)))
    return rows


def tubelet_projection(source: str, spec: ViTSpec) -> list[Row]:
    """Rows of the tubelet embedding's convolution."""
    assert spec.tubelet is not None
    shape = (spec.width, 3, spec.tubelet, spec.patch_size, spec.patch_size)
    return [
        Row("patch_embedding.projection.kernel", (f"{source}.weight",), shape, "tubelets"),
        Row("patch_embedding.projection.bias", (f"{source}.bias",), (spec.width,)),
    ]
