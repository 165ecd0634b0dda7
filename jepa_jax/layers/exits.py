"""Where an encoder is left: the layers up to there, and those that make an embedding of the tokens."""

from __future__ import annotations

from typing import NamedTuple

from jepa_jax.layers.layer import Layer
from jepa_jax.layers.stack import Stack


class Exit(NamedTuple):
    """One of an encoder's exits; those of an encoder follow each other, and share what lies before them.

    Attributes:
        before: what comes before the first block, beginning with an `EntryLayer`; of the first exit alone.
        blocks: from the exit before to this one; None where they leave at the same tokens.
        head: from these tokens to the exit's own embedding.
    """

    before: tuple[Layer, ...]
    blocks: Stack | None
    head: tuple[Layer, ...]
