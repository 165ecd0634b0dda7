"""One step: a batch of images, of one size, to columns of the table, whatever computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from jepa_jax.errors import JobError, OutOfMemoryError
from jepa_jax.images.decoding import InputRecipe


class Step(Protocol):
    """Scores batches of one size on all local devices.

    Attributes:
        recipe: what is scored of each record.
        records: in a batch.
        batch_size: images in a batch: of its records, and what fills it up.
        image_shape: (H, W, 3), or (T, H, W, 3) of clips.
    """

    recipe: InputRecipe
    records: int
    batch_size: int
    image_shape: tuple[int, ...]

    def __call__(self, images: np.ndarray) -> Any:
        """Score float32 [batch_size, *image_shape]; waits for the device. Threads may call it at the same time."""
        ...

    def columns(self, result: Any, records: int, optional: tuple[str, ...]) -> dict[str, np.ndarray]:
        """The table's columns, an array [records, ...] each, from what a call returned."""
        ...

    def why_no_score(self, row: Mapping[str, Any]) -> str | None:
        """Why a row of `columns` has no score; None where it has one."""
        ...

    def batches_at_once(self) -> int:
        """How many to compute at the same time."""
        ...

    def get_ready(self) -> str:
        """Compile; what was compiled, in words."""
        ...


def get_ready(step: Step) -> str:
    """Compile a step; what was compiled, in words.

    Raises:
        JobError: it does not fit into memory.
    """
    try:
        return step.get_ready()
    except (OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(step, error) from error


def out_of_memory(step: Step, error: Exception) -> JobError:
    """What to tell a user whose batch does not fit."""
    details = (str(error).splitlines() or ["no details"])[0][:200]
    if step.records > 1:
        remedy = f"with --batch-size {max(step.recipe.count, step.batch_size // 2)}"
    else:
        remedy = "with fewer --views" if step.recipe.views else "on a device with more memory"
    return JobError(
        f"memory ran out in a batch of {step.batch_size} images ({details}). Whole parts are kept: give the same "
        f"command {remedy}."
    )
