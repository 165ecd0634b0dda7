"""Examples from a file, all of them in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jepa_jax.errors import ArgumentError


@dataclass(frozen=True)
class LabelledImages:
    """A data set that fits in memory.

    Attributes:
        train, test: uint8 [N, H, W, 3].
        train_labels, test_labels: int [N].
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def load_examples(path: Path) -> np.ndarray:
    """``x_train`` of an ``.npz`` file: uint8 images [N, H, W, 3] or floating-point vectors [N, D]."""
    examples = _arrays(path, "x_train")[0]
    if examples.dtype == np.uint8 and examples.ndim == 4 and examples.shape[-1] == 3:
        return examples
    if np.issubdtype(examples.dtype, np.floating) and examples.ndim == 2:
        return examples.astype(np.float32)
    raise ArgumentError(
        f"{path}: x_train is {examples.dtype}{list(examples.shape)}; it must be uint8 images [N, H, W, 3] or "
        "floating-point vectors [N, D]."
    )


def examples_digest(examples: np.ndarray) -> str:
    """SHA-256 over dtype, shape and every value in order: the same digest means the same batches."""
    state = hashlib.sha256(f"{examples.dtype.str} {examples.shape}".encode())
    state.update(np.ascontiguousarray(examples).reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def load_labelled_images(path: Path) -> LabelledImages:
    """``x_train``, ``y_train``, ``x_test`` and ``y_test`` of an ``.npz`` file."""
    return LabelledImages(*_arrays(path, "x_train", "y_train", "x_test", "y_test"))


def _arrays(path: Path, *names: str) -> list[np.ndarray]:
    try:
        file = np.load(path)
        if isinstance(file, np.ndarray):
            raise ValueError("it is a single array, as .npy files hold one")
        with file:
            return [file[name] for name in names]
    except (OSError, KeyError, ValueError) as error:
        raise ArgumentError(f"data {path} cannot be read as .npz with {', '.join(names)} ({error}).") from error
