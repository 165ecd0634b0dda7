"""`BatchScorer`: the way in from data engines: Ray Data, `datasets`, Spark and Beam.

A job (`jepa_jax.jobs`) reads, deals out and writes; here the engine does that, and passes batches. What lies between,
from a picture to a row, is the same code, so that the scores are the same.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from jepa_jax.amortised import Amortised
from jepa_jax.batch_kinds import Keep, batch_of, kept_columns
from jepa_jax.encoders.encoder import Encoder
from jepa_jax.encoders.shipped import DEFAULT
from jepa_jax.encoders.specs import PositionResize
from jepa_jax.errors import ArgumentError, JobError, OutOfMemoryError
from jepa_jax.images.cells import picture_locators, read_picture
from jepa_jax.images.decoding import Decoded, decode_record
from jepa_jax.images.sources.records import Records, Unusable, read_file
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.output.schema import SaveDtype
from jepa_jax.jobs.rows.exact import ExactStep
from jepa_jax.jobs.rows.faults import Faults
from jepa_jax.jobs.rows.predicted import PredictingStep
from jepa_jax.jobs.rows.step import Step, get_ready
from jepa_jax.jobs.rows.stream import DeviceClock, Outcome, score_stream
from jepa_jax.loading import load_encoder
from jepa_jax.numerics.precision import AskedPrecision
from jepa_jax.scoring.options import ScoreOptions

FAILURE = pa.field("failure", pa.string(), metadata={"doc": "why the image has no score"})

_OF_INPUTS = ("key", "place", "bytes")
"""Columns of a score table that the engine's own have the place of."""

AGAIN = "let the engine try this batch again"


@dataclass(frozen=True)
class BatchScorer:
    """Scores batches of images wherever it is called: picklable, for Ray Data, `datasets`, Spark and Beam.

    It pickles as its arguments alone. Each process loads the encoder once, at the first call, and compiles one step,
    to which batches of any length are filled up. Threads may call it at the same time. Where another encoder is
    written into the directory, make another scorer: that loads it.

    Attributes:
        model: a known name, a directory that `jepa-jax convert` wrote, a Hugging Face folder, or a hub id, as in
            `jepa_jax.load_encoder`; by default jepa-tiny, which ships. Every worker must find it there.
        column: of the images: uint8 arrays ``[H, W]``, ``[H, W, 1]``, ``[H, W, 3]`` or ``[H, W, 4]``, of one size or
            of many; encoded bytes; ``{"bytes", "path"}`` as of Hugging Face's ``Image(decode=False)``; PIL images;
            paths as text, local in full or of any scheme.
        keep: whether the batch's own columns are in the result: True for all, False for none, or a list of names.
        image_size: side of the square input, pixels; by default the encoder's own.
        position_resize: how position embeddings are resized, as in `jepa_jax.load_encoder`.
        l2_normalize: whether embeddings are divided by their length, as in `jepa_jax.load_encoder`.
        precision: of the Jacobian's products, as in `jepa_jax.score`.
        tolerance: nats; images that may be off by more are scored again more exactly.
        memory: bytes that scoring may take; by default what the device has.
        score_only: leave out ``listing_score``, and the eigensolver that it needs.
        save: further columns, of ``singular_values`` and ``embedding``.
        save_dtype: of the further columns.
        views: random views of each image, combined into one score; 1 is the image itself. A view is drawn by its
            image's key, so ``key`` must be given.
        seed: of the views.
        key: the column of the images' keys, as text; `jepa-jax score` has them in its table.
        batch_size: images in a step, every view counted; by default as many as fill the device.
        layers: blocks that are scored as well, such as ``[-4, -1]``, as in `jepa_jax.score`; columns
            ``score_layer_9``, ``score_error_layer_9``.
        predictor: directory of a fit (`jepa_jax.Amortised.save`, or ``predictor`` in the output of an amortised job):
            scores are predicted from one forward pass, in batches of its own size, with ``score_low``,
            ``score_high``, ``method`` and ``unfamiliar``. Of the options above, those of exact scores are refused.

    Raises:
        ArgumentError: a value is invalid.

    Example:
        >>> import jepa_jax as jj
        >>> import numpy as np
        >>> scorer = jj.BatchScorer(model="jepa-tiny", column="image", keep=False, batch_size=2)
        >>> found = scorer({"image": [np.full((40, 60, 3), 99, np.uint8), b"no picture"]})
        >>> list(found)[:2], found["failure"][1] is not None
        (['score', 'score_error'], True)
    """

    model: str | os.PathLike | None = None
    column: str = "image"
    keep: Keep = True
    image_size: int | None = None
    position_resize: PositionResize | None = None
    l2_normalize: bool | None = None
    precision: AskedPrecision = "auto"
    tolerance: float | None = None
    memory: int | None = None
    score_only: bool = False
    save: Sequence[str] = ()
    save_dtype: SaveDtype = "float32"
    views: int = 1
    seed: int = 0
    key: str | None = None
    batch_size: int | None = None
    layers: Sequence[int] = ()
    predictor: str | os.PathLike | None = None

    def __post_init__(self):
        if isinstance(self.model, Encoder):
            raise ArgumentError(
                "model is an Encoder, with its arrays, which a scorer does not carry to every worker; save it with "
                "jepa_jax.encoders.save_encoder(encoder, DIR) where they all find it, and give model=DIR."
            )
        if not isinstance(self.model, str | os.PathLike | None):
            raise ArgumentError(
                f"model is of type {type(self.model).__name__}; a scorer has its encoder's name or directory. Make a "
                "jepa_jax.Scorer of an encoder of your own in each worker: docs/own-encoders.md, 'In a data engine'."
            )
        model = os.fspath(self.model or DEFAULT)
        # A worker may run in another directory.
        set_field = functools.partial(object.__setattr__, self)
        set_field("model", os.path.abspath(model) if os.path.isdir(model) else model)
        for name in ("keep", "save"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ArgumentError(f"{name}={value!r} is text; give a list, {name}=[{value!r}].")
            set_field(name, value if isinstance(value, bool) else tuple(value))
        if self.views > 1 and self.key is None:
            raise ArgumentError(
                f"views={self.views}: a view is drawn by its image's key; name the column of the keys, key=COLUMN."
            )
        set_field("layers", self._options.score.layers)
        if self.predictor is not None:
            self._require_predictable()
            place = os.fspath(self.predictor)
            set_field("predictor", os.path.abspath(place) if os.path.isdir(place) else place)
        # Goes with it to every process, where another encoder of this name may have been loaded.
        set_field("_written", (_when_written(self.model), _when_written(self.predictor)))

    def _require_predictable(self) -> None:
        """Refuse options that mean nothing of predicted scores."""
        exact = ("precision", "tolerance", "memory", "score_only", "views", "seed", "batch_size", "layers")
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = [f"{name}={getattr(self, name)!r}" for name in exact if getattr(self, name) != defaults[name]]
        given += ["save=['singular_values']"] * ("singular_values" in self.save)
        if given:
            raise ArgumentError(f"{given[0]} is for exact scores, and predictor predicts them; give one of the two.")

    @property
    def _options(self) -> JobOptions:
        score = ScoreOptions(
            self.precision,
            spectrum=not self.score_only,
            tolerance=self.tolerance,
            memory=self.memory,
            layers=self.layers,
        )
        return JobOptions(
            score=score,
            columns=tuple(sorted(self.save)),
            views=self.views,
            seed=self.seed,
            save_dtype=self.save_dtype,
            batch_size=self.batch_size,
        )

    def __call__(self, batch: Any) -> Any:
        """Score a batch.

        Args:
            batch: a mapping of columns (lists or arrays of one length), a pandas DataFrame or a pyarrow Table; it may
                be empty.

        Returns:
            The same kind of batch (of a lazy batch of `datasets`, a Table, whose types are certain): the columns that
            are kept, those of the score table of `jepa-jax score` without its key, and ``failure``: null, or why
            there is no score, and then the other new columns are null. Columns of a mapping are lists where all that
            came are lists, else arrays, masked where there is no score.

        Raises:
            ArgumentError: a column is not there, holds no pictures, or could be read in two ways; or columns are of
                several lengths.
            JobError: the machine is in trouble, its disk, network or memory; no image is to blame.
        """
        columns = batch_of(batch)
        wanted = {"column": self.column} | ({} if self.key is None else {"key": self.key})
        for argument, name in wanted.items():
            if (count := columns.names.count(name)) != 1:
                raise ArgumentError(
                    f"{argument}={name!r}: the batch has {count or 'no'} such column{'s' * (count > 1)}; it has the "
                    f"columns {columns.names}. Give one that it has once, {argument}=COLUMN."
                )
        locators = picture_locators(columns.cells(self.column), self.column)
        keys = [str(i) for i in range(len(locators))] if self.key is None else columns.cells(self.key)
        encoder = self.model, self.image_size, self.position_resize, self.l2_normalize
        engine = _engine(*encoder, self._options, self.predictor, vars(self)["_written"])
        kept = kept_columns(columns, self.keep, engine.schema.names)
        return columns.joined(kept, engine.table(list(map(str, keys)), locators, self.column))


class _Engine:
    """What a process loads: the encoder on its devices, and one compiled step."""

    def __init__(self, encoder: Encoder, options: JobOptions, predictor: Amortised | None = None):
        spec, options = encoder.spec, options.resolved
        if spec.preprocess.frames is not None:
            raise ArgumentError(
                f"model={spec.name!r} takes clips, and a column of a batch holds pictures: score videos by "
                "jepa-jax score, or clips by jepa_jax.score."
            )
        options = dataclasses.replace(options, predictor=predictor)
        table = options.schema(encoder)
        self.schema = pa.schema([field for field in table if field.name not in _OF_INPUTS] + [FAILURE])
        self._options = options
        self._step: Step
        if predictor is None:
            self._step = ExactStep(encoder, options, options.batch_size)
        else:
            self._step = PredictingStep(encoder, predictor)

    def table(self, keys: Sequence[str], locators: Sequence[Any], column: str) -> pa.Table:
        """The scores of pictures, a row for each."""
        paths = [at if isinstance(at, str) else Unusable("it is no path") for at in locators]
        faults = Faults(Records(f"the column {column!r}", keys, paths, read_file), AGAIN)
        decoded = (
            decode_record(i, key, at, read_picture, self._step.recipe)
            for i, (key, at) in enumerate(zip(keys, locators, strict=True))
        )
        rows: list[dict[str, Any]] = [{}] * len(locators)
        for outcome in self._outcomes(map(faults.require_none, decoded), bool(locators)):
            rows[outcome.record.index] = {"failure": outcome.reason} if outcome.row is None else outcome.row
        arrays = [_column([row.get(field.name) for row in rows], field.type) for field in self.schema]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _outcomes(self, decoded: Iterator[Decoded], any_there: bool) -> Iterator[Outcome]:
        if not any_there:
            return
        try:
            get_ready(self._step)
            yield from score_stream(decoded, self._step, self._options.columns, self._clock)
        except JobError as error:
            if not isinstance(error.__cause__, OutOfMemoryError | MemoryError):
                raise
            smaller = f"give batch_size={max(self._step.recipe.count, self._step.batch_size // 2)}"
            remedy = smaller if self._options.predictor is None else "a forward pass takes a device with more memory"
            raise JobError(
                f"memory ran out in a batch of {self._step.batch_size} images ({error.__cause__}); {remedy}."
            ) from error

    @functools.cached_property
    def _clock(self) -> DeviceClock:
        return _InTurn(self._step.batches_at_once())


def _column(values: list[Any], dtype: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(dtype):
        saved = dtype.value_type.to_pandas_dtype()
        values = [None if value is None else value.astype(saved) for value in values]
    return pa.array(values, dtype, from_pandas=True)


class _InTurn(DeviceClock):
    """Of threads that score at the same time, only as many are on the device as memory is planned for."""

    def __init__(self, at_once: int):
        super().__init__()
        self._turns = threading.Semaphore(at_once)

    def run(self, step: Step, images: np.ndarray) -> Any:
        """Score a batch when it is its turn."""
        with self._turns:
            return super().run(step, images)


_FREE = {os.getpid()}
"""Processes in which JAX may compute; a forked one inherits its parent's number, and is asked."""

_LOADING = threading.Lock()


def _engine(*arguments: Any) -> _Engine:
    """The process's engine for these arguments, loaded by the first thread that asks for it."""
    with _LOADING:
        if os.getpid() not in _FREE:
            if _jax_runs():
                raise JobError(
                    "this process was forked from one in which JAX had computed already, and would wait for ever; let "
                    "the engine's workers be the first to compute (datasets.map: num_proc in a fresh program), or "
                    "start them without fork."
                )
            _FREE.add(os.getpid())
        return _load(*arguments)


@functools.lru_cache(maxsize=4)
def _load(
    model: str,
    image_size: int | None,
    position_resize: PositionResize | None,
    l2_normalize: bool | None,
    options: JobOptions,
    predictor: str | None,
    written: tuple[int, int],
) -> _Engine:
    del written  # by which engines are told apart that have all else in common
    encoder = load_encoder(model, image_size=image_size, position_resize=position_resize, l2_normalize=l2_normalize)
    return _Engine(encoder, options, None if predictor is None else Amortised.load(predictor, encoder))


def _when_written(directory: Any) -> int:
    """When the newest file of a local directory was written, ns; 0 where there is no such directory."""
    paths = Path(directory).rglob("*") if directory is not None and os.path.isdir(directory) else ()
    return max((path.stat().st_mtime_ns for path in paths), default=0)


def _jax_runs() -> bool:
    """Whether JAX holds devices, whose number could not be set any more."""
    name = "jax_num_cpu_devices"
    now = getattr(jax.config, name)
    try:
        jax.config.update(name, now + 1)
    except RuntimeError:
        return True
    jax.config.update(name, now)
    return False
