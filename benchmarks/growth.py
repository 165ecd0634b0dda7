"""How cost grows: time and memory against the size of everything, and what devices share, on a small encoder."""

from __future__ import annotations

import dataclasses
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType

import jepa_jax as jj
from benchmarks.processes import call, devices_environment
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.encoders.drawn import random_encoder

COLLECTIVES = r"(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\("


@dataclass(frozen=True)
class Growth:
    """One quantity at a time is varied; the others keep their values.

    Attributes:
        width, depth, image_size: of the encoder that is varied.
        outputs: values of K, by a projection.
        sides: image sizes, pixels; tokens are (side / 14)^2 + 1.
        depths: numbers of blocks.
        batches: images computed side by side.
        counts: images computed one after the other in one call.
        rows: of the Jacobian in one pass.
        devices: numbers of (forced CPU) devices, with one image each.
        repeats: of every point; the median counts.
    """

    width: int = 128
    depth: int = 4
    image_size: int = 56
    outputs: tuple[int, ...] = (32, 64, 128, 256, 512)
    sides: tuple[int, ...] = (28, 56, 112, 168)
    depths: tuple[int, ...] = (2, 4, 8, 16)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    counts: tuple[int, ...] = (1, 4, 16)
    rows: tuple[int, ...] = (16, 32, 64, 128)
    devices: tuple[int, ...] = (1, 2, 4, 8)
    repeats: int = 5

    def run(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Measure every point."""
        axes: dict[str, list[dict[str, Any]]] = {}
        for axis, size, encoder, batch, options in self._points():
            cost = _cost(encoder, batch, options, self.repeats)
            axes.setdefault(axis, []).append({"size": size} | cost)
            print(f"  {axis} {size}: {cost['seconds_median']:.4f} s", flush=True)
            record({"axes": axes})
        result: dict[str, Any] = {"axes": axes, "exponents": {name: _exponents(rows) for name, rows in axes.items()}}
        record(result)
        arguments = {"encoder": self._spec().to_dict(), "counts": self.devices}
        result["devices"] = call(
            "benchmarks.growth:on_devices", arguments, environment=devices_environment(max(self.devices))
        )
        return result

    def _spec(self, image_size: int | None = None, **changes: Any) -> EncoderSpec:
        vit = ViTSpec(self.width, self.depth, 2, 14, 224, 4 * self.width, layer_scale=True)
        side = image_size or self.image_size
        return EncoderSpec("growing", "dinov2", dataclasses.replace(vit, **changes), PreprocessSpec(side, side))

    def _points(self) -> Iterator[tuple[str, int, Encoder, int, dict[str, Any]]]:
        """Axis, place on it, encoder, batch size and options of every point."""
        one = {"images_per_step": 1}
        base = random_encoder(self._spec())
        for size in self.outputs:
            yield "outputs K", size, random_encoder(self._spec(projection=size)), 1, one
        for size in self.sides:
            yield "tokens", (size // 14) ** 2 + 1, random_encoder(self._spec(size)), 1, one
        for size in self.depths:
            yield "depth", size, random_encoder(self._spec(depth=size)), 1, one
        for size in self.batches:
            yield "images side by side", size, base, size, {"images_per_step": size}
        for size in self.counts:
            yield "images one by one", size, base, size, one
        for size in self.rows:
            yield "rows per pass", size, base, 1, one | {"block_size": size}


def _cost(encoder: Encoder, batch: int, options: dict[str, Any], repeats: int) -> dict[str, Any]:
    images = _images(encoder, batch)
    scorer = jj.Scorer(encoder, **options)
    scorer.params = jax.device_put(scorer.params)
    program = scorer.program(images)
    scorer(images)
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        scorer(images)
        seconds.append(time.perf_counter() - begun)
    return {
        "seconds_median": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "bytes": program.peak_bytes,
    }


def _images(encoder: Encoder, batch: int) -> np.ndarray:
    side = encoder.spec.image_size
    return np.random.default_rng(0).standard_normal((batch, side, side, 3)).astype(np.float32)


def _exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Powers of the size with which time and memory grow between the two largest."""
    small, large = rows[-2:]
    step = np.log(large["size"] / small["size"])
    return {
        "seconds": float(np.log(large["seconds_median"] / small["seconds_median"]) / step),
        "bytes": float(np.log(large["bytes"] / small["bytes"]) / step),
    }


def on_devices(encoder: dict[str, Any], counts: list[int]) -> list[dict[str, Any]]:
    """Each device's work and memory with an image each, and the collectives of the program, by number of devices.

    From XLA's account of the compiled program: forced CPU devices share the same cores, so that seconds say nothing.
    """
    ours = random_encoder(EncoderSpec.from_dict(encoder))
    rows = []
    for count in counts:
        mesh = jax.make_mesh((count, 1), ("data", "rows"), axis_types=(AxisType.Auto, AxisType.Auto))
        fn, params = jj.score_fn(ours, mesh=mesh)
        images = jax.ShapeDtypeStruct(_images(ours, count).shape, np.float32)
        compiled = jax.jit(fn).lower(params, images).compile()
        analysis, memory = compiled.cost_analysis(), compiled.memory_analysis()
        rows.append(
            {
                "devices": count,
                "images": count,
                "flops_per_device": analysis.get("flops") if analysis else None,  # loops counted once, in all alike
                "bytes_per_device": memory.temp_size_in_bytes if memory else None,
                "collectives": sorted(set(re.findall(COLLECTIVES, compiled.as_text() or ""))),
            }
        )
    return rows
