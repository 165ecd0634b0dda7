"""Who races: every way to score an image, ours and PyTorch's, behind one interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax

from jepa_jax.numerics.platforms import cores
from jepa_jax.numerics.precision import Precision

Way = Literal["listing", "vectorized listing", "jacrev", "compiled jacrev", "generic", "rules"]


class Unavailable(RuntimeError):
    """Somebody cannot take part here; the message says why."""


@dataclass(frozen=True)
class Entry:
    """One participant.

    Attributes:
        way: the paper's listing (`torch.autograd.functional.jacobian` of the summed embedding), looped or with
            ``vectorize=True``; `torch.func.jacrev`, plain or through `torch.compile`; or one of our engines.
        rounds: how often it runs, at most; None for every round.
        chunk: rows of the Jacobian at a time, for jacrev.
        precision: of the Jacobian.
        images: in one call. Seconds are reported per image.
        image_per_core: as many images in one call as there are processor cores, which take one each.
        compiler: `torch.compile`'s backend.
        values: whether ours gives all singular values as the listing does, or the score alone, as jobs do.
    """

    way: Way
    rounds: int | None = None
    chunk: int | None = None
    precision: Precision = "float32"
    images: int = 1
    image_per_core: bool = False
    compiler: str = "inductor"
    values: bool = True

    @property
    def ours(self) -> bool:
        """Whether it is an engine of this package."""
        return self.way in ("generic", "rules")

    @property
    def emulated(self) -> bool:
        """Whether the device has no units for this precision: then its error is real and its speed is not."""
        return self.precision not in ("float32", "float64") and jax.default_backend() == "cpu"

    @property
    def batch(self) -> int:
        """Images in one call."""
        return cores() if self.image_per_core else self.images

    @property
    def name(self) -> str:
        """In words."""
        names = {
            "listing": "paper's listing",
            "vectorized listing": "paper's listing, vectorize=True",
            "jacrev": f"torch.func.jacrev, {self.chunk} rows",
            "compiled jacrev": f"torch.func.jacrev, {self.chunk} rows, torch.compile",
        }
        parts = [names.get(self.way, f"jepa_jax {self.way}")]
        if self.precision != "float32":
            parts.append(self.precision + (" (emulated)" if self.emulated else ""))
        if self.image_per_core:
            parts.append("one image per core")
        elif self.images > 1:
            parts.append(f"{self.images} images")
        if not self.values:
            parts.append("score alone")
        return ", ".join(parts)


@dataclass(frozen=True)
class Reading:
    """What somebody found for the first image.

    Attributes:
        score: nats, null directions left out.
        listing_score: nats, the paper's; None where singular values were not asked for.
        score_error: nats, predicted; None where nothing is.
    """

    score: float
    listing_score: float | None
    score_error: float | None = None


@dataclass(frozen=True)
class Contestant:
    """An entry, ready to run.

    Attributes:
        entry: who.
        prepare: compiles and warms up, and returns the seconds that compiling took, or None.
        run: the work that is timed.
        read: of what ``run`` returned, after the clock has stopped.
        note: what else is to be said.
    """

    entry: Entry
    prepare: Callable[[], float | None]
    run: Callable[[], Any]
    read: Callable[[Any], Reading]
    note: str = ""
