"""What a user may choose about a job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from jepa_jax.encoders import EncoderSpec
from jepa_jax.errors import ArgumentError
from jepa_jax.images.decoding import InputRecipe
from jepa_jax.images.views import ViewRecipe, Views, view_recipe
from jepa_jax.jobs.schema import SAVABLE, SAVE_DTYPES, SaveDtype
from jepa_jax.jobs.stopping import FailureLimit
from jepa_jax.scoring.options import ScoreOptions


@dataclass(frozen=True)
class JobOptions:
    """How a job is done.

    Attributes:
        score: how scores are computed. Without its ``spectrum`` the table has neither ``singular_values`` nor
            ``listing_score``. The mesh is the job's own: all local devices.
        calibrate: images on which the encoder's rounding noise is measured when the job begins, for ``score_error``
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
    """

    score: ScoreOptions = field(default_factory=ScoreOptions)
    calibrate: int = 0
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

    def __post_init__(self):
        for name, least in (("views", 1), ("calibrate", 0), ("batch_size", 1), ("shard_size", 1), ("workers", 0)):
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
