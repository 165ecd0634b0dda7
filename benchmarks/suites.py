"""What is run: every suite as a list of stages with their settings and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.accuracy import Accuracy, Levels
from benchmarks.breakdown import Breakdown
from benchmarks.ceiling import Ceiling
from benchmarks.growth import Growth
from benchmarks.jobs import Jobs
from benchmarks.memory import Case, Memory
from benchmarks.peers import Entry
from benchmarks.race import Race
from benchmarks.soundness import Soundness
from jepa_jax.numerics.precision import Precision


class Settings(Protocol):
    """A stage's settings, which are a frozen dataclass, and what is done with them."""

    def run(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Measure; ``record`` is told what there is so far, in case the rest never comes."""
        ...


@dataclass(frozen=True)
class Stage:
    """One measurement.

    Attributes:
        name: its key in the results.
        settings: what is measured.
        limit_seconds: after which it is stopped; what it has recorded is kept.
        part: of a suite that is run in several calls.
    """

    name: str
    settings: Settings
    limit_seconds: float
    part: int = 1


@dataclass(frozen=True)
class Suite:
    """Stages that are run one after the other.

    Attributes:
        stages: in their order.
        environment: variables of all of them.
        own_processes: whether each stage has a process of its own.
    """

    stages: tuple[Stage, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    own_processes: bool = True


ON_PROCESSORS = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
"""Both frameworks on the processor, whatever else there is."""

EMULATED = ("bfloat16", "float16", "tensorfloat32", "bfloat16_3x")

SMOKE = Suite(
    (
        Stage("ceiling", Ceiling(("toy",), 28, square=256, precisions=("float32",), repeats=2), 60),
        Stage(
            "race-toy-28",
            Race(
                "toy",
                28,
                rounds=2,
                square=256,
                entries=(
                    Entry("listing"),
                    Entry("vectorized listing"),
                    Entry("jacrev", chunk=16),
                    # Without code generation, which takes half a minute.
                    Entry("compiled jacrev", chunk=16, compiler="aot_eager"),
                    Entry("jacrev", chunk=16, precision="float64"),
                    Entry("generic"),
                    Entry("rules"),
                    Entry("rules", precision="bfloat16", images=2),
                    *(Entry("rules", precision=precision) for precision in (*EMULATED[1:], "float64")),
                    Entry("rules", image_per_core=True),
                ),
            ),
            90,
        ),
        Stage("breakdown-toy-28", Breakdown("toy", 28, repeats=1, whole=False, jpeg_size=64), 60),
        Stage("accuracy", Accuracy(images=2, levels=("float32",), model="toy", image_size=28, batch=2), 90),
        Stage("levels-toy-28", Levels("toy", 28, images=3, batch=2, levels=("float16",)), 60),
        Stage("memory", Memory((Case("toy", 28),)), 60),
        Stage(
            "growth",
            Growth(16, 2, 28, (16, 32), (), (), (), (), (), devices=(1, 2), repeats=1),
            60,
        ),
        Stage("jobs", Jobs((96,), seconds=0.1, resumed=256, compiled=None), 120),
    ),
    # Compiling takes nearly all of its time, and its programs need not be fast.
    ON_PROCESSORS | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
    own_processes=False,
)

CPU = Suite(
    (
        Stage("ceiling", Ceiling(), 60),
        Stage(
            "race-dinov2-small-112",
            Race(
                "dinov2-small",
                112,
                rounds=3,
                entries=(
                    Entry("listing"),
                    Entry("vectorized listing", rounds=1),
                    Entry("jacrev", chunk=16, rounds=2),
                    Entry("jacrev", chunk=32),
                    Entry("jacrev", chunk=64),
                    Entry("jacrev", chunk=32, precision="float64", rounds=1),
                    Entry("generic"),
                    Entry("rules"),
                    Entry("rules", image_per_core=True),
                    *(Entry("rules", precision=precision, rounds=1) for precision in (*EMULATED, "float64")),
                    # Last: compiling takes long, and may run into the limit.
                    Entry("compiled jacrev", chunk=32, rounds=2),
                ),
            ),
            480,
        ),
        Stage(
            "race-dinov2-small-224",
            Race(
                "dinov2-small",
                224,
                rounds=3,
                entries=(
                    Entry("listing", rounds=2),
                    Entry("jacrev", chunk=16, rounds=1),
                    Entry("jacrev", chunk=32, rounds=2),
                    Entry("jacrev", chunk=64, rounds=2),
                    Entry("generic", rounds=2),
                    Entry("rules"),
                    Entry("rules", image_per_core=True, rounds=2),
                ),
            ),
            720,
        ),
        Stage(
            "race-dinov2-base-112",
            Race(
                "dinov2-base",
                112,
                rounds=2,
                entries=(
                    Entry("listing", rounds=1),
                    Entry("jacrev", chunk=32, rounds=1),
                    Entry("generic"),
                    Entry("rules"),
                    Entry("rules", image_per_core=True, rounds=1),
                ),
            ),
            360,
        ),
        Stage("breakdown-dinov2-small-112", Breakdown("dinov2-small", 112, repeats=2), 150),
        Stage("breakdown-dinov2-small-224", Breakdown("dinov2-small", 224, repeats=1, whole=False), 180),
        Stage("accuracy", Accuracy(images=32, batch=2), 300),
        Stage(
            "memory",
            Memory(
                (
                    Case("dinov2-small", 112),
                    Case("dinov2-small", 224),
                    Case("dinov2-base", 112),
                    Case("dinov2-base", 224, scored=False),
                )
            ),
            240,
        ),
        Stage("growth", Growth(), 180),
        Stage("jobs", Jobs(), 300),
    ),
    ON_PROCESSORS,
)


def _gpu_race(
    model: str, limit_seconds: float, entries: Sequence[Entry], part: int = 1, what: str | None = None
) -> Stage:
    """A race at 224 pixels, most important first; ``what`` tells several of one model apart."""
    name = f"race-{model}-224" + (f"-{what}" if what else "")
    return Stage(name, Race(model, 224, 3, tuple(entries), square=8192), limit_seconds, part)


def _gpu_levels(model: str, limit_seconds: float, levels: tuple[Precision, ...]) -> Stage:
    """Errors at 224 pixels."""
    return Stage(f"levels-{model}-224", Levels(model, 224, levels=levels), limit_seconds, part=2)


def _levels(images: int, *levels: Precision) -> tuple[Entry, ...]:
    """Ours, several images in a call, and scores alone, as jobs compute them."""
    return tuple(Entry("rules", precision=level, images=images, values=False) for level in levels)


_LISTING = Entry("listing", rounds=1)
_JACREV = tuple(
    Entry("jacrev", chunk=384, rounds=2, precision=level) for level in ("tensorfloat32", "float16", "float32")
)

GPU = Suite(
    # One visit of eight minutes, most important first: the limits of the first part come to 450 seconds.
    (
        _gpu_race(
            "dinov2-small",
            215,
            (
                *_levels(8, "float16"),
                _LISTING,
                *_JACREV,
                *_levels(8, "bfloat16_3x", "float32"),
                *_levels(1, "float64"),
            ),
        ),
        _gpu_race("dinov2-base", 75, (*_levels(4, "float16"), _LISTING, *_JACREV[:2])),
        Stage("jobs", Jobs((640,), 0.5, 0, None, model="dinov2-small", workers=8), 65),
        Stage("soundness", Soundness(), 30),
        _gpu_race("dinov2-large", 65, _levels(2, "float16")),
        # First what the race has compiled.
        _gpu_levels("dinov2-small", 110, ("float16", "bfloat16_3x", "float32", "bfloat16", "tensorfloat32")),
        _gpu_levels("dinov3-small", 95, ("float16", "float32")),
        _gpu_race(
            "dinov2-small",
            90,
            (*_levels(8, "float16"), Entry("rules", precision="float16", images=8), *_levels(1, "float16")),
            part=2,
            what="calls",
        ),
        # In a minute, what the first race comes to last.
        _gpu_race("dinov2-small", 60, _levels(8, "bfloat16_3x", "float32"), part=2, what="parts"),
        Stage("accuracy", Accuracy(images=32, image_size=224, batch=8, peer_batch=2), 120, part=2),
        Stage("breakdown-dinov2-small-224", Breakdown("dinov2-small", 224), 60, part=2),
        Stage("ceiling", Ceiling(("dinov2-small", "dinov2-large"), 224, 8192, ("float32", *EMULATED)), 60, part=2),
        _gpu_race("ijepa-vith14-1k", 120, _levels(1, "float16"), part=2),
        _gpu_race("dinov2-giant", 150, _levels(1, "float16"), part=2),
        Stage("memory", Memory((Case("dinov2-small", 224), Case("dinov2-base", 224))), 90, part=2),
        Stage("growth", Growth(devices=(1, 2)), 90, part=2),
    ),
    {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # PyTorch needs memory beside JAX
)

SUITES = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}


def find_stage(suite: str, name: str) -> Stage:
    """A stage by its name."""
    return next(stage for stage in SUITES[suite].stages if stage.name == name)
