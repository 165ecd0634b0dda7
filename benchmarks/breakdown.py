"""Where the time of a score goes: input, forward pass, Jacobian, spectrum; each part compiled by itself."""

from __future__ import annotations

import functools
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from PIL import Image

import jepa_jax as jj
from benchmarks.contest import Contest, make_contest
from jepa_jax.images.decoding import InputRecipe, decode
from jepa_jax.images.natural import natural_pictures
from jepa_jax.jacobian.jacobian import differential, embed_with_nulls, prepare
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.numerics.bases import complement_basis
from jepa_jax.numerics.platforms import platform_of
from jepa_jax.spectrum.factor import Factor
from jepa_jax.spectrum.methods import resolve_method
from jepa_jax.spectrum.spectrum import all_values, structural_values


@dataclass(frozen=True)
class Breakdown:
    """Seconds of each part of the way from a file to a score, for one image.

    Attributes:
        model: ``toy``, or the known name of a DINOv2.
        image_size: side, pixels.
        repeats: of every part; the median counts.
        whole: whether the parts' sum is compared with whole programs, with and without singular values.
        jpeg_size: side of the JPEG file that is read, pixels.
    """

    model: str
    image_size: int
    repeats: int = 3
    whole: bool = True
    jpeg_size: int = 640

    def run(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Time every part."""
        contest = make_contest(self.model, self.image_size, peers=False)
        result: dict[str, Any] = {"model": self.model, "image_size": self.image_size, "parts": {}}
        for name, part in _parts(contest, self.jpeg_size, self.whole).items():
            seconds = _timed(part, self.repeats)
            result["parts"][name] = {
                "seconds_median": statistics.median(seconds),
                "seconds_min": min(seconds),
                "seconds_max": max(seconds),
            }
            print(f"  {name}: {statistics.median(seconds):.4f} s", flush=True)
            record(result)
        jacobian = result["parts"]["jacobian"]["seconds_median"]
        result["spectrum_over_jacobian"] = {
            what: result["parts"][f"spectrum, {what}"]["seconds_median"] / jacobian
            for what in ("score only", "all values")
        }
        return result


def _timed(part: Callable[[], Any], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(part())
        seconds.append(time.perf_counter() - begun)
    return seconds


def _parts(contest: Contest, jpeg_size: int, whole: bool) -> dict[str, Callable[[], Any]]:
    """Each part as a function of nothing, compiled, in the order in which they run."""
    encoder, images = contest.encoder, contest.images[:1]
    function, params, image = encoder.function, jax.device_put(encoder.params), jax.device_put(images[0])
    file = io.BytesIO()
    Image.fromarray(natural_pictures(1, jpeg_size)[0]).save(file, "JPEG", quality=90)
    recipe, options = InputRecipe(encoder.spec.preprocess), JacobianOptions()
    algorithm = resolve_method("auto", images.dtype, platform_of())

    @jax.jit
    def forward(params: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        with jax.default_matmul_precision("highest"):
            return embed_with_nulls(function, params, image)

    @jax.jit
    def jacobian(params: Any, image: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            prepared = prepare(function, params, image.shape, options, compact=True)
            return differential(function, params, prepared, image, options).transpose

    columns, nulls = jax.block_until_ready(jacobian(params, image)), forward(params, image)[1]
    size = images[0].size

    def spectrum(read: Callable[[Factor, jax.Array], Any]) -> Callable[[], Any]:
        """A spectrum stage on the Jacobian; JAX's float64 is on where the algorithm needs it."""

        @jax.jit
        def stage(columns: jax.Array, nulls: jax.Array) -> Any:
            factor = algorithm.compress(columns)
            return read(factor, complement_basis(nulls.astype(factor.dtype)))

        def run() -> Any:
            with algorithm.scope(columns.dtype):
                return stage(columns, nulls)

        jax.block_until_ready(run())
        return run

    def every_value(factor: Factor, basis: jax.Array) -> Any:
        return all_values(factor, size), structural_values(factor, basis, size)

    parts: dict[str, Callable[[], Any]] = {
        "input": lambda: decode(file.getvalue(), "picture", recipe),
        "forward": lambda: forward(params, image),
        "jacobian": lambda: jacobian(params, image),
        "spectrum, score only": spectrum(lambda factor, basis: factor.log_volume(basis)),
        "spectrum, all values": spectrum(every_value),
    }
    if whole:
        for name, values in (("whole, score only", False), ("whole, all values", True)):
            scorer = jj.Scorer(encoder, spectrum=values)
            scorer.params = params
            scorer.program(images)
            parts[name] = functools.partial(scorer, images)
    return parts
