"""Reading tensors by name from files, one at a time, without executing anything that they contain."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors

from jepa_jax.errors import CheckpointError


@dataclass(frozen=True)
class TensorInfo:
    """What a file's header says of a tensor: its shape, and its dtype by NumPy's name."""

    shape: tuple[int, ...]
    dtype: str


class TensorReader(Protocol):
    """A source of named tensors."""

    path: Path

    def names(self) -> Iterable[str]:
        """All tensor names."""
        ...

    def describe(self, name: str) -> TensorInfo:
        """Shape and dtype of one tensor, without reading it."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One tensor, in its stored dtype."""
        ...

    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        ...


_SAFETENSORS_DTYPES = {
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
    """A safetensors file, or a folder with ``model.safetensors`` or an index of shards."""

    def __init__(self, path: Path):
        self.path = path
        self._file_of: dict[str, Path] = {}
        self._info: dict[str, TensorInfo] = {}
        for file, names in _safetensors_files(path).items():
            header = self._open(file)
            if names is not None and names != set(header.keys()):
                raise CheckpointError(
                    f"the index of {path} and its shard {file.name} name different tensors; download both again."
                )
            for name in header.keys():  # noqa: SIM118 (not a mapping)
                tensor = header.get_slice(name)
                dtype = str(tensor.get_dtype())
                dtype = _SAFETENSORS_DTYPES.get(dtype, dtype)
                self._info[name] = TensorInfo(tuple(tensor.get_shape()), dtype)
                self._file_of[name] = file

    def names(self) -> Iterable[str]:
        """All tensor names."""
        return self._file_of.keys()

    def describe(self, name: str) -> TensorInfo:
        """Shape and dtype of one tensor, without reading it."""
        return self._info[name]

    def read(self, name: str) -> np.ndarray:
        """One tensor; bfloat16 arrives as ml_dtypes' bfloat16."""
        # Opened anew each time: an open file keeps all that was read of it in memory.
        return self._open(self._file_of[name]).get_tensor(name)

    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        return sorted(set(self._file_of.values()))

    @staticmethod
    def _open(file: Path) -> Any:
        try:
            return safetensors.safe_open(file, framework="np")
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{file} is not a whole safetensors file ({error}): it is truncated, or something else under "
                "that name. Download it again."
            ) from error


def _safetensors_files(path: Path) -> dict[Path, set[str] | None]:
    """Files, and the tensors that an index says are in each of them."""
    if path.is_file():
        return {path: None}
    index = path / "model.safetensors.index.json"
    if not index.exists():
        single = path / "model.safetensors"
        if not single.exists():
            raise CheckpointError(
                f"{path} has no model.safetensors and no model.safetensors.index.json: download the weights."
            )
        return {single: None}
    files: dict[Path, set[str] | None] = {}
    try:
        for name, shard in json.loads(index.read_text())["weight_map"].items():
            names = files.setdefault(path / Path(shard).name, set())
            assert names is not None
            names.add(name)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is not an index of shards ({error}); download it again.") from error
    absent = sorted(file.name for file in files if not file.exists())
    if absent:
        raise CheckpointError(f"{path} lacks {', '.join(absent)}, which its index names; download them.")
    return files


MAPPED_BYTES = 2**26
"""A mapped file keeps what was read of it in memory; after so many bytes it is mapped anew."""


class TorchReader:
    """A state dict in a ``.pth``, ``.pt``, ``.bin`` or ``.tar`` file, read with ``weights_only=True``: no code is run.

    Args:
        path: the file.
        select: picks the encoder's state dict out of what the file holds, which may be a whole training state.
    """

    def __init__(self, path: Path, select: Callable[[Any, Path], Any] = lambda contents, _: contents):
        self.path = path
        self._select = select
        # A mapped file is read tensor by tensor; only files of torch's older format must be loaded whole.
        self._mapped = zipfile.is_zipfile(path)
        if self._mapped and _is_torchscript(path):
            raise CheckpointError(
                f"{path} is a TorchScript archive: a program with weights in it, which is never executed here. "
                "Pass the model's Hugging Face folder, or save its weights where the archive is trusted: "
                "torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), NEW_FILE)."
            )
        self._open()

    def _open(self) -> None:
        path = self.path
        try:
            import torch
        except ImportError as error:
            raise CheckpointError(
                f"reading {path.name} needs torch: pip install 'torch>=2.6'. Safetensors need none."
            ) from error
        try:
            contents = torch.load(path, map_location="cpu", weights_only=True, mmap=self._mapped)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(
                f"{path} is not a plain dictionary of tensors ({reason}). It is truncated, or a pickle that would "
                "run code, which is never executed here. Get the official file, or safetensors."
            ) from error
        state = self._select(contents, path)
        if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
            raise CheckpointError(f"{path} holds no flat dictionary of tensors; pass the encoder's state dict.")
        self._state = state
        self._torch = torch
        self._bytes_read = 0

    def names(self) -> Iterable[str]:
        """All tensor names."""
        return self._state.keys()

    def describe(self, name: str) -> TensorInfo:
        """Shape and dtype of one tensor, without reading it."""
        tensor = self._state[name]
        return TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    def read(self, name: str) -> np.ndarray:
        """One tensor; bfloat16, which NumPy lacks, is widened to float32."""
        if self._mapped and self._bytes_read > MAPPED_BYTES:
            self._open()
        tensor = self._state[name].detach()
        self._bytes_read += tensor.nbytes
        return (tensor.float() if tensor.dtype == self._torch.bfloat16 else tensor).numpy()

    def files(self) -> list[Path]:
        """The file."""
        return [self.path]


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(Path(name).name == "constants.pkl" for name in archive.namelist())


def without_module_prefix(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """A state dict without the ``module.`` that PyTorch's data parallelism puts before every name, or before none."""
    prefixed = [name for name in state if name.startswith("module.")]
    if prefixed and len(prefixed) != len(state):
        raise CheckpointError(
            f"{path}: {len(prefixed)} of {len(state)} names begin with 'module.'; all must, or none."
        )
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


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
