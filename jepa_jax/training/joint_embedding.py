"""Joint embedding: views of an example meet, and a criterion keeps all embeddings from meeting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jepa_jax.training.models import Model, pixels
from jepa_jax.training.objectives import LeJEPA, Terms, VICReg, whiten
from jepa_jax.training.views import ImageViews, VectorViews


@dataclass(frozen=True)
class JointEmbedding:
    """Random views of each example, embedded by one encoder.

    Attributes:
        views: how they are drawn.
        criterion: what compares their embeddings.
        whitened: whether embeddings are whitened over the batch before they are compared. That solves the linear
            part of the problem in every step: no collapse to climb out of, no scale to find; SIGReg is left with
            the shape. The encoder that comes out is whitened once more, over its training images (`calibration`).
    """

    views: ImageViews | VectorViews
    criterion: LeJEPA | VICReg
    whitened: bool = False

    target_decay = None
    """No moving average of the encoder takes part."""

    @property
    def gaussian(self) -> bool:
        """Whether embeddings are trained to N(0, I)."""
        return self.criterion.gaussian

    def init(self, model: Model, key: jax.Array) -> dict[str, Any]:
        """Parameters beside the encoder's: none."""
        del model, key
        return {}

    def loss(
        self, model: Model, params: dict[str, Any], target: Any, examples: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[Terms, jax.Array]]:
        """The loss, its terms, and the first view's embeddings [B, K], as they are compared.

        Args:
            model: what is trained.
            params: ``encoder`` and ``head``.
            target: unused.
            examples: uint8 images [B, H, W, 3] or vectors [B, D].
            key: of every random draw.
        """
        del target
        view_key, criterion_key = jax.random.split(key)
        views = self.views(pixels(examples), view_key)
        embeddings = jnp.concatenate([model.embed(params["encoder"], kind) for kind in views])
        if self.whitened:
            embeddings = whiten(embeddings.reshape(-1, embeddings.shape[-1])).reshape(embeddings.shape)
        loss, terms = self.criterion(embeddings, criterion_key)
        return loss, (terms, embeddings[0])
