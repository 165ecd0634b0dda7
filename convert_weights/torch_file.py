"""PyTorch's own files: pickles, of which nothing is executed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from convert_weights.readers import TensorInfo, some
from jepa_jax.errors import CheckpointError

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
        self._mapped = _is_zip(path)
        if self._mapped:
            _check_archive(path)
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
        except Exception as error:  # what a damaged pickle makes of torch's reader is no closed set
            raise CheckpointError(
                f"{path} is not a plain dictionary of tensors ({_first_line(error)}). It is truncated, or a pickle "
                "that would run code, which is never executed here. Get the official file, or safetensors."
            ) from error
        state = self._select(contents, path)
        if (
            not isinstance(state, dict)
            or not all(isinstance(name, str) for name in state)
            or not all(isinstance(value, torch.Tensor) for value in state.values())
        ):
            raise CheckpointError(f"{path} holds no flat dictionary of tensors; pass the encoder's state dict.")
        self._state = state
        self._torch = torch
        self._bytes_read = 0

    def names(self) -> Iterable[str]:
        """All tensor names."""
        return self._state.keys()

    def describe(self, name: str) -> TensorInfo:
        """Shape and dtype of one tensor, without reading it.

        Raises:
            CheckpointError: it is no plain array: sparse, quantised, without values, or of fewer than it shows.
        """
        tensor = self._state[name]
        fault = self._fault(tensor)
        if fault:
            raise CheckpointError(f"{self.path}: tensor {some([name])} {fault}.")
        return TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    def _fault(self, tensor: Any) -> str | None:
        if tensor.is_nested or tensor.layout != self._torch.strided:
            return f"is not a dense one ({tensor.layout}); save it as tensor.to_dense()"
        if tensor.device.type != "cpu":
            return f"has no values (it is on the device {tensor.device}); save the model after it was loaded"
        if tensor.is_quantized:
            return f"is quantised ({tensor.dtype}); save it as tensor.dequantize()"
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            return f"shows {tensor.numel()} values, of which fewer are stored; save it as tensor.contiguous()"
        return None

    def read(self, name: str) -> np.ndarray:
        """One tensor; bfloat16, which NumPy lacks, is widened to float32."""
        if self._mapped and self._bytes_read > MAPPED_BYTES:
            self._open()
        try:
            tensor = self._state[name].detach()
            self._bytes_read += tensor.nbytes
            return (tensor.float() if tensor.dtype == self._torch.bfloat16 else tensor).numpy()
        except Exception as error:
            raise CheckpointError(
                f"{self.path}: tensor {some([name])} cannot be read ({_first_line(error)}); save it as a plain one."
            ) from error

    def files(self) -> list[Path]:
        """The file."""
        return [self.path]


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}).") from error


def _check_archive(path: Path) -> None:
    """Refuse programs, and members whose checksum is not that of their bytes: torch itself does not look."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            program = any(Path(member.filename).name == "constants.pkl" for member in members)
            packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
            # A program is refused for what it is, whole or not.
            damaged = None if program or packed else archive.testzip()
    except Exception as error:  # so many ways has an archive to be damaged
        raise CheckpointError(
            f"{path} is a damaged archive ({_first_line(error)}): it is truncated or was changed. Download it again."
        ) from error
    if program:
        raise CheckpointError(
            f"{path} is a TorchScript archive: a program with weights in it, which is never executed here. "
            "Pass the model's Hugging Face folder, or save its weights where the archive is trusted: "
            "torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), NEW_FILE)."
        )
    if packed:
        raise CheckpointError(f"{path} is a compressed archive ({some(packed)}), which torch.save never writes.")
    if damaged:
        raise CheckpointError(
            f"{path} is a damaged archive: {some([damaged])} is not what its checksum says. Download it again."
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
