"""Options of amortised scores: which there are, and which go together."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from jepa_jax.errors import ArgumentError

if TYPE_CHECKING:
    from jepa_jax.encoders import Encoder
    from jepa_jax.jobs import Amortise

AMORTISED = "Amortised scores"
"""The panel of these options in the help."""


class MethodChoice(StrEnum):
    """Values of --method."""

    exact = "exact"
    amortised = "amortised"


class TailChoice(StrEnum):
    """Values of --tail."""

    lowest = "lowest"
    highest = "highest"


def require_amortised(
    method: MethodChoice, asked: dict[str, Any], tail: TailChoice | None, between: tuple[float, float] | None
) -> None:
    """Refuse options of amortised scores that would do nothing, or that say two things."""

    def named(name: str) -> str:
        return f"--{(name if name != 'tail' or not between else 'between').replace('_', '-')}"

    if method == MethodChoice.exact and asked:
        raise ArgumentError(f"{named(next(iter(asked)))} is for amortised scores: give --method amortised as well.")
    if tail and between:
        raise ArgumentError("--tail and --between both say what is escalated; give one of them.")
    if between and "escalate" in asked:
        raise ArgumentError("--between and --escalate both say how many are escalated; give one of them.")
    fitted = {"exact_sample", "sample_seed", "coverage"}.intersection(asked)
    if "predictor" in asked and fitted:
        raise ArgumentError(
            f"{named(min(fitted))} is for fitting a predictor, and --predictor is fitted already; give one of the two."
        )


def amortise(asked: dict[str, Any], encoder: Encoder) -> Amortise:
    """What a job is told of amortised scores; a predictor is loaded for the encoder."""
    from jepa_jax.amortised import Amortised
    from jepa_jax.jobs import Amortise

    if "predictor" in asked:
        asked = asked | {"predictor": Amortised.load(asked["predictor"], encoder)}
    return Amortise(**asked)
