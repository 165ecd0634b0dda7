"""Images per second on the devices that are here, by precision and batch, and how far that is from their limit."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.costs.planning import multiplications
from jepa_jax.encoders import Encoder
from jepa_jax.images.natural import natural_pictures
from jepa_jax.jobs.options import JobOptions
from jepa_jax.jobs.rows.exact import ExactStep
from jepa_jax.numerics.platforms import Platform, platform_of
from jepa_jax.numerics.precision import FASTEST, LEVELS, Precision, levels_from
from jepa_jax.numerics.product_rates import jax_product, product_rates
from jepa_jax.scoring.batches import default_batch_size
from jepa_jax.scoring.options import ScoreOptions
from jepa_jax.scoring.scorer import Scorer

COMPARED = 2
"""Pictures whose scores are compared with float64's."""

LONG_ENOUGH = 1.5
"""Seconds over which a step is repeated, and three times at least; the median counts."""

SQUARE: dict[Platform, int] = {"cpu": 2048, "gpu": 8192, "tpu": 8192}
"""Side of the product by which a device's rate is measured."""


@dataclass(frozen=True)
class Throughput:
    """What one level of precision and size of batch came to, on all local devices.

    Attributes:
        precision: the level.
        batch_size: images in a step.
        images_per_second: scored, without singular values.
        milliseconds: an image.
        ceiling_share: of the rate of one large matrix product at this level, by the multiplications of a Jacobian.
        forward_passes: of the encoder in the time of one score; float32, in batches of the same size.
        peak_bytes: memory, by XLA's account; 0 if it gives none.
        compile_seconds: what compiling took; little where the persistent cache knew the program.
        score_error: predicted bound of the scores' errors, nats, in the median.
        error: largest difference from float64 of some scores, nats; None where time did not suffice for float64.
        emulated: whether the device has no units for the level: then its errors are real, and its speed is not.
    """

    precision: Precision
    batch_size: int
    images_per_second: float
    milliseconds: float
    ceiling_share: float
    forward_passes: float
    peak_bytes: int
    compile_seconds: float
    score_error: float
    error: float | None
    emulated: bool


def default_levels(platform: Platform) -> list[Precision]:
    """The levels that are measured where none is named: the one that ``auto`` begins with first, float64 never."""
    if platform == "cpu":
        return ["float32"]  # it has no units for the others
    first = FASTEST[platform]
    return [first, *(level for level in levels_from(LEVELS[0], platform) if level not in (first, "float64"))]


def measure_throughput(
    encoder: Encoder,
    levels: Sequence[Precision] = (),
    batch_sizes: Sequence[int] = (),
    *,
    layers: Sequence[int] = (),
    seconds: float = 100.0,
    done: Callable[[list[Throughput]], None] = lambda rows: None,
) -> list[Throughput]:
    """Measure scoring, most important first, for as long as there is time.

    Args:
        encoder: scores made-up pictures.
        levels: of precision; by default `default_levels`.
        batch_sizes: images in a step; by default as many as fill the devices, and then one per device.
        layers: scored as well, in the same sweep; errors are the encoder's own.
        seconds: after which nothing new is begun. What was begun is finished.
        done: is told all rows after each, and once more when their errors are known.

    Returns:
        A row for each level and size for which there was time; one at least.
    """
    begun = time.monotonic()
    platform, devices = platform_of(jax.local_devices()), jax.local_device_count()
    levels = levels or default_levels(platform)
    batch_sizes = batch_sizes or sorted({default_batch_size(encoder.spec), devices}, reverse=True)
    rows: list[Throughput] = []
    scores: list[np.ndarray] = []
    for size in batch_sizes:
        for level in levels:
            if rows and time.monotonic() - begun > seconds:
                break
            row, found = _measure(encoder, level, size, layers, platform)
            rows.append(row)
            scores.append(found)
            done(rows)
    if time.monotonic() - begun <= seconds:
        exact = np.asarray(Scorer(encoder, precision="float64", spectrum=False)(_inputs(encoder, COMPARED)).score)
        differences = (float(np.max(np.abs(found - exact[: len(found)]))) for found in scores)
        rows = [replace(row, error=error) for row, error in zip(rows, differences, strict=True)]
        done(rows)
    return rows


def _measure(
    encoder: Encoder, level: Precision, size: int, layers: Sequence[int], platform: Platform
) -> tuple[Throughput, np.ndarray]:
    """One row, and the scores of the first pictures."""
    step = ExactStep(encoder, JobOptions(ScoreOptions(level, spectrum=False, layers=layers)), size)
    images = _inputs(encoder, step.batch_size)
    program = step.compile()
    each = _median_seconds(lambda: step(images)) / step.batch_size
    result = step(images)
    forward = _forward_seconds(encoder, images) / step.batch_size
    spec, plan = encoder.spec, program.plan
    shape = images.shape[1:]
    rows = plan.pass_size(int(np.prod(shape)), spec.embedding_size, layered=True)
    cost = encoder.function.with_layers(layers).cost(shape, rows, plan.chosen_schedule, plan.products)
    operations = 2 * multiplications(cost, rows, spec.embedding_size)
    row = Throughput(
        level,
        step.batch_size,
        1 / each,
        1e3 * each,
        operations / each / (_rate(level, platform) * jax.local_device_count()),
        each / forward,
        program.peak_bytes,
        program.compile_seconds,
        float(np.median(result.score_error)),
        None,
        platform == "cpu" and level not in ("float32", "float64"),
    )
    return row, np.asarray(result.score[:COMPARED], np.float64)


@functools.cache
def _rate(level: Precision, platform: Platform) -> float:
    """Operations per second of a large product on one device."""
    side = SQUARE[platform]
    shape = side, side, side
    return statistics.median(product_rates(jax_product(shape, level), shape, 5))


def _inputs(encoder: Encoder, count: int) -> np.ndarray:
    """Preprocessed pictures, the first ones always the same; of a few in turns. Clips are stills: as fast."""
    pictures, frames = natural_pictures(min(count, 8), encoder.spec.image_size), encoder.spec.preprocess.frames
    few = encoder.preprocess(pictures if frames is None else np.stack([np.asarray(pictures)] * frames, axis=1))
    return np.asarray(few)[np.arange(count) % len(few)]


def _forward_seconds(encoder: Encoder, images: np.ndarray) -> float:
    """Of one forward pass of a batch on one device, in full float32, images there already."""
    function, params, batch = jax.jit(encoder.function), encoder.params, jnp.asarray(images)
    with jax.default_matmul_precision("highest"):
        seconds = _median_seconds(lambda: jax.block_until_ready(function(params, batch)))
    return seconds / jax.local_device_count()


def _median_seconds(run: Callable[[], object]) -> float:
    """Of a call, after one to warm up."""
    run()
    return statistics.median(_durations(run))


def _durations(run: Callable[[], object]) -> Iterator[float]:
    total, count = 0.0, 0
    while total < LONG_ENOUGH or count < 3:
        begun = time.perf_counter()
        run()
        took = time.perf_counter() - begun
        total, count = total + took, count + 1
        yield took
