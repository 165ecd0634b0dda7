"""Videos of every container and codec that tests write, as a record of a job."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import video_files
from fuzzing import Target

from jepa_jax.errors import ImageError
from jepa_jax.images import InputRecipe, PreprocessSpec
from jepa_jax.images.decoding import decode_record
from jepa_jax.images.sources.videos import open_video

RECIPE = InputRecipe(PreprocessSpec(18, 16, "bilinear", frames=4, frame_step=3))


@functools.cache
def _content(kind: str, seed: int, sound: bool) -> bytes:
    return video_files.video(kind, video_files.frames(12, seed=seed), sound=sound)


def written(random: np.random.Generator, folder: Path, *, kind: str) -> Path:
    """A sound file, one of a few."""
    path = folder / f"video.{kind}"
    path.write_bytes(
        _content(kind, int(random.integers(3)), kind in ("mp4", "mkv", "mov") and bool(random.integers(2)))
    )
    return path


def score(path: Path) -> np.ndarray:
    """What a job does up to the encoder."""
    found = decode_record(0, path.name, str(path), open_video, RECIPE)
    if found.no_fault_of_its_own or found.unreadable:
        raise AssertionError(f"the machine or the reader is blamed: {found.reason}")
    if found.inputs is None:
        raise ImageError(found.reason)
    assert found.inputs.shape == (1, 4, 16, 16, 3)
    assert np.all(np.isfinite(found.inputs))
    return found.inputs


TARGETS = tuple(
    Target(f"video-{kind}", functools.partial(written, kind=kind), score, (ImageError,)) for kind in video_files.KINDS
)
