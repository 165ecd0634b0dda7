"""Safetensors: a header of names, shapes and offsets, and the bytes; nothing in it is code."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from convert_weights.readers import TensorInfo, some
from jepa_jax.errors import CheckpointError

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


class SafetensorsReader:
    """A safetensors file."""

    def __init__(self, path: Path):
        self.path = path
        header = self._open()
        try:
            slices = {name: header.get_slice(name) for name in header.keys()}  # noqa: SIM118 (not a mapping)
            self._info = {
                name: TensorInfo(tuple(tensor.get_shape()), _dtype_name(tensor)) for name, tensor in slices.items()
            }
        except Exception as error:
            raise self._damaged(error) from error

    def names(self) -> Iterable[str]:
        """All tensor names."""
        return self._info.keys()

    def describe(self, name: str) -> TensorInfo:
        """Shape and dtype of one tensor, without reading it."""
        return self._info[name]

    def read(self, name: str) -> np.ndarray:
        """One tensor; bfloat16 arrives as ml_dtypes' bfloat16."""
        # Opened anew each time: an open file keeps all that was read of it in memory.
        try:
            return self._open().get_tensor(name)
        except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{self.path}: tensor {some([name])} cannot be read ({error}).") from error

    def files(self) -> list[Path]:
        """The file."""
        return [self.path]

    def _open(self) -> Any:
        try:
            return safetensors.safe_open(self.path, framework="np")
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> CheckpointError:
        reason = " ".join(str(error).split())[:200]
        return CheckpointError(
            f"{self.path} is not a whole safetensors file ({reason}): it is truncated, or something else under "
            "that name. Download it again."
        )


def _dtype_name(tensor: Any) -> str:
    name = str(tensor.get_dtype())
    return _DTYPES.get(name, name)
