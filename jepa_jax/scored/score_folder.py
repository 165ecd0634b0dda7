"""`score_folder`: a job from Python, from whatever `jepa-jax score` reads to a table in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from jepa_jax.encoders import Encoder
from jepa_jax.encoders.shipped import DEFAULT
from jepa_jax.encoders.specs import PositionResize
from jepa_jax.errors import ArgumentError
from jepa_jax.images.sources import open_sources
from jepa_jax.jobs import JobInterrupted, JobOptions, run_job
from jepa_jax.jobs.output.schema import SaveDtype
from jepa_jax.jobs.progress.console import ConsoleProgress, Quiet
from jepa_jax.loading import load_encoder
from jepa_jax.numerics.precision import AskedPrecision
from jepa_jax.paths import PathLike
from jepa_jax.scored.scored_images import ScoredImages
from jepa_jax.scoring.options import ScoreOptions


def score_folder(
    input: PathLike | Sequence[PathLike],
    *,
    model: PathLike | Encoder | None = None,
    output: PathLike | None = None,
    column: str | None = None,
    keys: Sequence[str] | None = None,
    limit: int | None = None,
    shuffle_seed: int | None = None,
    image_size: int | None = None,
    frames: int | None = None,
    frame_step: int | None = None,
    position_resize: PositionResize | None = None,
    l2_normalize: bool | None = None,
    precision: AskedPrecision = "auto",
    tolerance: float | None = None,
    noise_images: int = 0,
    memory: int | None = None,
    score_only: bool = False,
    layers: Sequence[int] = (),
    save: Sequence[str] = (),
    save_dtype: SaveDtype = "float32",
    views: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
    shard_size: int | None = None,
    workers: int = 0,
    max_failures: str | None = None,
    retry_failed: bool = False,
    extend: bool = False,
    quiet: bool = False,
) -> ScoredImages:
    """Score every image of an input: the job of ``jepa-jax score`` as a function.

    Args:
        input: what ``jepa-jax score`` reads: a folder of images or videos, archives, a Parquet or CSV file, an array
            file, ``tfds:NAME/SPLIT``, a bucket; or a list of such.
        model: a known name, a directory, a hub id (see `jepa_jax.load_encoder`), or an `Encoder`; by default
            ``jepa-tiny``, which ships and is for trying things out.
        output: directory of the table; a job that was begun there is resumed. By default the table is only in
            memory, and an interrupted call has to begin again.
        column: of the pictures or their paths, where an input has several.
        keys: score only these records.
        limit: score only the first so many records.
        shuffle_seed: of a random order; with ``limit`` a random sample.
        image_size: side of the square input, pixels, a multiple of the patch size; by default the encoder's own. This
            and the next four are for a ``model`` that is named.
        frames: of a clip, where the encoder takes clips, as in `jepa_jax.load_encoder`.
        frame_step: a clip has every so many of a video's frames, as in `jepa_jax.load_encoder`.
        position_resize: how position embeddings are resized, as in `jepa_jax.load_encoder`.
        l2_normalize: whether embeddings are divided by their length, as in `jepa_jax.load_encoder`.
        precision: of the Jacobian's products; ``auto`` is the fastest level of an accelerator within a tolerance.
        tolerance: nats; images that may be off by more are scored again more exactly.
        noise_images: images on which rounding noise is measured first, for an encoder without null directions; 0 takes
            what is typical.
        memory: bytes that scoring may take; by default what the device has.
        score_only: leave out ``listing_score``, and the eigensolver that it needs.
        layers: whose own embeddings are scored as well, counted from 1 on, or from -1 back: a column
            ``score_layer_N`` and its error for each.
        save: further columns, of ``singular_values`` and ``embedding``.
        save_dtype: of the further columns.
        views: random views of each image, combined into one score; 1 is the image itself.
        seed: of the views.
        batch_size: images in a step, every view counted; by default as many as fill the device.
        shard_size: records in a part of the table.
        workers: processes that decode images; 0 decodes in a thread. In a script they need the usual
            ``if __name__ == "__main__":``.
        max_failures: give up when more records fail: a count such as ``"50"``, or a share such as ``"10%"``.
        retry_failed: with ``output``: compute parts with failures again.
        extend: with ``output``: score what is new in the input since the job began.
        quiet: show no progress.

    Returns:
        `ScoredImages`: prints as a table, shows its extremes in a notebook, and has ``to_pandas()`` and
        ``to_arrow()``. Images without a score are in its ``failures``, each with its reason.

    Raises:
        ArgumentError: an argument is invalid, or the input is nothing that can be scored.
        JobError: ``output`` belongs to another job, or the job cannot go on. `jepa_jax.jobs.JobInterrupted`, a kind
            of it, where a signal stopped the job; with ``output`` the same call goes on.

    Example:
        >>> import jepa_jax as jj
        >>> scored = jj.score_folder("photos/", quiet=True)
        >>> len(scored), scored.failures.num_rows
        (3, 0)
        >>> scored.to_arrow().column_names[:4]
        ['key', 'place', 'bytes', 'score']
        >>> rarest = scored.to_pandas().sort_values("score").key.iloc[0]
    """
    options = JobOptions(
        score=ScoreOptions(
            precision, spectrum=not score_only, tolerance=tolerance, memory=memory, layers=tuple(layers)
        ),
        noise_images=noise_images,
        columns=_texts("save", save),
        views=views,
        seed=seed,
        save_dtype=save_dtype,
        batch_size=batch_size,
        shard_size=shard_size,
        workers=workers,
        max_failures=max_failures,
        retry_failed=retry_failed,
        extend=extend,
    )
    if output is None and (retry_failed or extend):
        given = "retry_failed" if retry_failed else "extend"
        raise ArgumentError(f"{given}=True goes on with an earlier job: give its directory as output.")
    source = open_sources([input] if isinstance(input, (str, os.PathLike)) else list(input), column)
    source = source if keys is None else source.only(_texts("keys", keys))
    source = source.some(limit, shuffle_seed)
    encoder = _encoder(
        model,
        image_size=image_size,
        frames=frames,
        frame_step=frame_step,
        position_resize=position_resize,
        l2_normalize=l2_normalize,
    )
    with tempfile.TemporaryDirectory(prefix="jepa-jax-") as temporary:
        directory = temporary if output is None else output
        try:
            if quiet:
                run_job(encoder, source, directory, Quiet(), options)
            else:
                with ConsoleProgress(Console()) as progress:
                    run_job(encoder, source, directory, progress, options)
        except JobInterrupted as interruption:
            if output is not None:
                raise
            raise JobInterrupted(
                "score_folder was interrupted, and nothing is kept without a directory: give output=DIR, and the same "
                "call goes on.",
                interruption.exit_status - 128,
            ) from interruption
        return ScoredImages.read(directory, source)


def _encoder(model: PathLike | Encoder | None, **changes: Any) -> Encoder:
    if callable(model) and not isinstance(model, Encoder):  # an OwnEncoder, or a function
        raise ArgumentError(
            f"model is of type {type(model).__name__}, and only an Encoder says how pictures become its input. Score "
            "arrays of your own making: docs/own-encoders.md, 'A folder of pictures'."
        )
    if not isinstance(model, Encoder):
        return load_encoder(model or DEFAULT, **changes)
    given = [f"{name}={value!r}" for name, value in changes.items() if value is not None]
    if given:
        raise ArgumentError(f"{given[0]} is for a model that is named; give it to load_encoder, and model=encoder.")
    return model


def _texts(name: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ArgumentError(f"{name}={values!r} is text; give a list, {name}=[{values!r}].")
    return tuple(values)
