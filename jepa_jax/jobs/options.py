"""What a user may choose about a job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from jepa_jax.amortised import Amortised
from jepa_jax.amortised.amortised import Tail, require_enough
from jepa_jax.encoders import Encoder, EncoderSpec
from jepa_jax.errors import ArgumentError
from jepa_jax.images.decoding import InputRecipe
from jepa_jax.images.views import ViewRecipe, Views, view_recipe
from jepa_jax.jobs.failure_limit import FailureLimit
from jepa_jax.jobs.output.schema import SAVABLE, SAVE_DTYPES, SaveDtype, amortised_schema, score_schema
from jepa_jax.scoring.options import ScoreOptions


@dataclass(frozen=True)
class Amortise:
    """How a job predicts most scores from one forward pass.

    Attributes:
        exact_sample: images, drawn at random, whose scores are computed exactly, to fit the predictor and to calibrate
            it; none where a ``predictor`` is given.
        sample_seed: of the draw.
        coverage: of the intervals: the share of images whose exact score lies within.
        escalate: share of all images, those predicted nearest to the tail's end, whose scores are computed exactly
            afterwards; 0 for none. With ``recall`` it is the tail's own share.
        tail: which images are escalated: those predicted ``lowest`` or ``highest``, or between two quantiles.
        recall: of the exact tail that is wanted: as many images are escalated as that takes; see
            `jepa_jax.Amortised.escalate`.
        predictor: fitted before, for the same encoder.
    """

    exact_sample: int = 2000
    sample_seed: int = 0
    coverage: float = 0.9
    escalate: float = 0.02
    tail: Tail | tuple[float, float] = "lowest"
    recall: float | None = None
    predictor: Amortised | None = None

    def __post_init__(self):
        if not 0 <= self.escalate <= 1:
            raise ArgumentError(f"escalate={self.escalate} must be a share of the images, from 0 to 1.")
        if not 0 < self.coverage < 1:
            raise ArgumentError(f"coverage={self.coverage} must lie between 0 and 1.")
        if self.recall is not None and not (0 < self.recall < 1 and 0 < self.escalate < 1):
            raise ArgumentError(
                f"recall={self.recall} of the tail escalate={self.escalate}: both must lie between 0 and 1."
            )
        if isinstance(self.tail, str):
            if self.tail not in ("lowest", "highest"):
                raise ArgumentError(f"tail={self.tail!r} is unknown; use 'lowest', 'highest' or two quantiles.")
        elif not 0 <= self.tail[0] < self.tail[1] <= 1:
            raise ArgumentError(f"between={self.tail} must be two quantiles of the scores, from 0 to 1.")
        if self.predictor is None:
            require_enough(self.exact_sample, self.coverage)

    @property
    def pinned(self) -> dict[str, Any]:
        """What a resumed job must share."""
        sample = {"exact_sample": self.exact_sample, "sample_seed": self.sample_seed, "coverage": self.coverage}
        escalation = {"escalate": self.escalate, "tail": self.tail, "recall": self.recall}
        return (sample if self.predictor is None else {"predictor": self.predictor.digest}) | escalation


@dataclass(frozen=True)
class JobOptions:
    """How a job is done.

    Attributes:
        score: how scores are computed. Without its ``spectrum`` the table has neither ``singular_values`` nor
            ``listing_score``. The mesh is the job's own: all local devices.
        noise_images: images on which the encoder's rounding noise is measured when the job begins, for ``score_error``
            and ``tolerance`` of encoders without null directions; 0 takes what is typical.
        columns: optional columns, of ``singular_values`` and ``embedding``; with several views they are of the image
            itself, which is one input more.
        views: random views of each image whose scores are combined; 1 scores the image itself.
        seed: of the views.
        view_recipe: how views are drawn; by default as the encoder's family was trained, see `jepa_jax.images.views`.
        save_dtype: of the optional columns' values.
        batch_size: images per step of this process, every view counted; by default as many as fill the device.
        shard_size: records per part; by default about 64 parts of 8 to 1,024 records.
        workers: processes that decode images; 0 decodes in a thread of this process.
        max_failures: give up when more records fail: a count such as ``"50"``, or a share such as ``"0.1"``
            or ``"10%"`` of those tried so far. By default a job goes on whatever fails.
        retry_failed: compute the parts again that hold failures.
        extend: score what is new in an input that has grown since the job began.
        amortise: predict most scores from one forward pass; see `jepa_jax.jobs.amortising`.
        predictor: of such a job's own part that predicts.
    """

    score: ScoreOptions = field(default_factory=ScoreOptions)
    noise_images: int = 0
    columns: tuple[str, ...] = ()
    views: int = 1
    seed: int = 0
    view_recipe: ViewRecipe | None = None
    save_dtype: SaveDtype = "float32"
    batch_size: int | None = None
    shard_size: int | None = None
    workers: int = 0
    max_failures: str | None = None
    retry_failed: bool = False
    extend: bool = False
    amortise: Amortise | None = None
    predictor: Amortised | None = None

    def __post_init__(self):
        self._check_amortised()
        for name, least in (("views", 1), ("noise_images", 0), ("batch_size", 1), ("shard_size", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ArgumentError(f"{name}={value} must be at least {least}.")
        unknown = set(self.columns) - set(SAVABLE)
        if unknown:
            raise ArgumentError(f"columns {sorted(unknown)} cannot be saved; choose from {', '.join(SAVABLE)}.")
        if self.save_dtype not in SAVE_DTYPES:
            raise ArgumentError(f"save_dtype={self.save_dtype!r} is unknown; use one of {', '.join(SAVE_DTYPES)}.")
        if not self.score.spectrum and "singular_values" in self.columns:
            raise ArgumentError("columns ['singular_values'] need the spectrum: leave out spectrum=False.")
        if self.score.mesh is not None:
            raise ArgumentError("score.mesh: a job shares its batches out among all local devices; leave it out.")
        if self.views == 1 and (self.seed or self.view_recipe is not None):
            given = f"seed={self.seed}" if self.seed else "view_recipe"
            raise ArgumentError(f"{given} is of random views: give views=2 or more as well, or leave it out.")
        if self.batch_size is not None and self.batch_size < self.inputs_per_record:
            itself = " and the image itself, for its columns" if self.columns else ""
            raise ArgumentError(
                f"batch_size={self.batch_size} is too small for the {self.views} views of one image{itself}: give "
                f"batch_size={self.inputs_per_record} or more, or fewer views."
            )
        _ = self.failure_limit

    def _check_amortised(self) -> None:
        if not self.amortises:
            return
        unfit = {
            "views": self.views > 1,
            "columns ['singular_values']": "singular_values" in self.columns,
            "retry_failed": self.retry_failed,
            "extend": self.extend,
            "layers": bool(self.score.layers),
        }
        for name, given in unfit.items():
            if given:
                raise ArgumentError(f"{name}: an amortised job has none. Leave it out, or compute exact scores.")

    @property
    def amortises(self) -> bool:
        """Whether its table holds predicted scores."""
        return self.amortise is not None or self.predictor is not None

    @property
    def method(self) -> dict[str, Any]:
        """How a job that predicts does it: what its manifest pins."""
        if self.predictor is not None:
            return {"method": "predicted", "predictor": self.predictor.digest}
        return {} if self.amortise is None else {"method": "amortised", "amortise": self.amortise.pinned}

    def schema(self, encoder: Encoder) -> pa.Schema:
        """Of the table of an encoder's scores."""
        spec, columns = encoder.spec, sorted(self.columns)
        size = spec.embedding_size
        if self.amortises:
            return amortised_schema(size, columns, self.save_dtype)
        return score_schema(
            size,
            spec.gaussian_embedding,
            columns,
            self.save_dtype,
            not self.score.spectrum,
            self.views,
            layers=encoder.layer_ranks(self.score.layers),
        )

    @property
    def inputs_per_record(self) -> int:
        """What is scored of each image: itself, or its views, and itself as well where columns are of it."""
        return 1 if self.views == 1 else self.views + bool(self.columns)

    @property
    def resolved(self) -> JobOptions:
        """These options with a level in the place of ``precision="auto"``: what the manifest pins."""
        return replace(self, score=self.score.resolved(layered=True))

    def input_recipe(self, spec: EncoderSpec) -> InputRecipe:
        """What is scored of each image by an encoder."""
        if self.views == 1:
            return InputRecipe(spec.preprocess)
        if spec.preprocess.frames is not None:
            raise ArgumentError(
                f"views={self.views}: random views are of images, and {spec.name!r} takes clips; leave it out."
            )
        views = Views(self.views, self.seed, self.view_recipe or view_recipe(spec.family))
        return InputRecipe(spec.preprocess, plain=bool(self.columns), views=views)

    @property
    def failure_limit(self) -> FailureLimit:
        """``max_failures``, understood."""
        return FailureLimit() if self.max_failures is None else FailureLimit.parse(self.max_failures)
