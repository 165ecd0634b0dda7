"""Reading tensors by name from files, one at a time, without executing anything that they contain."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors

from jepa_jax.errors import CheckpointError


class TensorReader(Protocol):
    """A source of named tensors."""

    path: Path

    def names(self) -> Iterable[str]:
        """All tensor names."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One tensor, in its stored dtype."""
        ...

    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        ...


class SafetensorsReader:
    """A safetensors file, or a folder with ``model.safetensors`` or an index of shards."""

    def __init__(self, path: Path):
        self.path = path
        self._file_of: dict[str, Path] = {}
        for file in _safetensors_files(path):
            self._file_of |= dict.fromkeys(self._open(file).keys(), file)

    def names(self) -> Iterable[str]:
        """All tensor names."""
        return self._file_of.keys()

    def read(self, name: str) -> np.ndarray:
        """One tensor; bfloat16 arrives as ml_dtypes' bfloat16."""
        return np.asarray(self._open(self._file_of[name]).get_tensor(name))

    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        return sorted(set(self._file_of.values()))

    @staticmethod
    def _open(file: Path) -> Any:
        try:
            return safetensors.safe_open(file, framework="flax")
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{file} is not a whole safetensors file ({error}): it is truncated, or something else under "
                "that name. Download it again."
            ) from error


def _safetensors_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    index = path / "model.safetensors.index.json"
    if not index.exists():
        single = path / "model.safetensors"
        if not single.exists():
            raise CheckpointError(
                f"{path} has no model.safetensors and no model.safetensors.index.json: download the weights."
            )
        return [single]
    try:
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of shards ({error}); download it again.") from error
    files = [path / Path(shard).name for shard in shards]
    absent = [file.name for file in files if not file.exists()]
    if absent:
        raise CheckpointError(f"{path} lacks {', '.join(absent)}, which its index names; download them.")
    return files


class TorchReader:
    """A state dict in a ``.pth``/``.pt``/``.bin`` file, read with ``weights_only=True``: no code is run."""

    def __init__(self, path: Path):
        self.path = path
        try:
            import torch
        except ImportError as error:
            raise CheckpointError(
                f"reading {path.name} needs torch: pip install 'jepa-jax[convert]'. Safetensors need none."
            ) from error
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(
                f"{path} is not a plain dictionary of tensors ({reason}). It is truncated, or a pickle that would "
                "run code, which is never executed here. Get the official file, or safetensors."
            ) from error
        if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
            raise CheckpointError(f"{path} holds no flat dictionary of tensors; pass the encoder's state dict.")
        self._state = state
        self._torch = torch

    def names(self) -> Iterable[str]:
        """All tensor names."""
        return self._state.keys()

    def read(self, name: str) -> np.ndarray:
        """One tensor; bfloat16, which NumPy lacks, is widened to float32."""
        tensor = self._state[name].detach()
        return (tensor.float() if tensor.dtype == self._torch.bfloat16 else tensor).numpy()

    def files(self) -> list[Path]:
        """The file."""
        return [self.path]


def folder_reader(folder: Path) -> TensorReader:
    """The weights of a Hugging Face folder: safetensors, or the older pytorch_model.bin where it has only that."""
    old = folder / "pytorch_model.bin"
    if old.exists() and not any(folder.glob("model*.safetensors*")):
        return TorchReader(old)
    return SafetensorsReader(folder)


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
