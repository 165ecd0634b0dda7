"""Rounding noise of a job's encoder, measured once on the job's first images, before anything is scored."""

from __future__ import annotations

import itertools

import numpy as np

from jepa_jax.encoders import Encoder
from jepa_jax.errors import ArgumentError, JobError
from jepa_jax.images.decoding import InputRecipe, decode_record
from jepa_jax.images.sources import Records
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.rows.faults import Faults
from jepa_jax.numerics.precision import Precision
from jepa_jax.scoring.noise import measure_noise, measured_levels


def require_measurable(encoder: Encoder, options: JobOptions) -> None:
    """Refuse a measurement that would change nothing."""
    if not options.noise_images:
        return
    if encoder.null_direction_count:
        raise ArgumentError(
            f"noise_images={options.noise_images}: each image of {encoder.spec.name} shows its own noise, along "
            "directions that the encoder cannot reach. Leave it out."
        )
    if options.score.precision == "float64":
        raise ArgumentError(f"noise_images={options.noise_images}: there is nothing finer than float64. Leave it out.")


def noise_of_first_images(encoder: Encoder, source: Records, options: JobOptions) -> dict[Precision, float]:
    """Noise of every level that the job may use, by `jepa_jax.measure_noise`, on the first images that can be used.

    Raises:
        JobError: there is none.
    """
    recipe = InputRecipe(encoder.spec.preprocess)
    records = zip(source.keys, source.locators, strict=True)
    decoded = (decode_record(i, *record, source.reader, recipe) for i, record in enumerate(records))
    checked = map(Faults(source).require_none, decoded)
    images = (record.inputs for record in checked if record.inputs is not None)
    batch = list(itertools.islice(images, options.noise_images))
    if not batch:
        raise JobError(f"none of the {len(source.keys)} images of {source.name} can be decoded to measure noise on.")
    levels = measured_levels(options.score.level, options.score.platform, climbs=options.score.tolerance is not None)
    return {level: measure_noise(encoder, np.concatenate(batch), level) for level in levels}
