"""Train encoders of vectors: all seeds at once, examples drawn inside the step, so that data never runs out."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jepa_jax.scorer import score
from jepa_jax.spectrum import gaussian_score
from jepa_jax.studies.densities import Density
from jepa_jax.training.mlp import MLP
from jepa_jax.training.objectives import LeJEPA, VICReg
from jepa_jax.training.views import VectorViews


@dataclass(frozen=True)
class Recipe:
    """How an encoder of vectors is trained.

    Attributes:
        outputs: K.
        criterion: what compares views.
        noise: of the views, standard deviation as a share of the data's.
        views: per example.
        hidden: widths of the encoder's hidden layers.
        steps, batch_size, learning_rate: of Adam with a cosine to zero.
    """

    outputs: int
    criterion: LeJEPA | VICReg = field(default_factory=lambda: LeJEPA(weight=0.005, directions=32))
    noise: float = 0.1
    views: int = 2
    hidden: tuple[int, ...] = (64, 64)
    steps: int = 3000
    batch_size: int = 512
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class TrainedVectors:
    """Encoders of one recipe, one per seed.

    Attributes:
        encoder: the architecture.
        params: parameters with a leading axis of seeds.
        mean, scale: the data's; inputs are standardised with them.
    """

    encoder: MLP
    params: Any
    mean: jax.Array
    scale: jax.Array

    def embed(self, seed: int, vectors: jax.Array) -> jax.Array:
        """[B, D] in the data's units -> [B, K]."""
        params = jax.tree.map(lambda leaf: leaf[seed], self.params)
        return self.encoder(params, (vectors - self.mean) / self.scale)


def train_vectors(density: Density, recipe: Recipe, seeds: int) -> TrainedVectors:
    """Train one encoder per seed, side by side in one compiled program."""
    sample = density.sample(jax.random.key(2**20), 20_000)
    mean, scale = sample.mean(axis=0), jnp.std(sample)
    encoder = MLP(density.size, recipe.hidden, recipe.outputs)
    views = VectorViews(recipe.views, recipe.noise)
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def loss(params: Any, key: jax.Array) -> jax.Array:
        data_key, view_key, criterion_key = jax.random.split(key, 3)
        vectors = (density.sample(data_key, recipe.batch_size) - mean) / scale
        [noisy] = views(vectors, view_key)
        return recipe.criterion(encoder(params, noisy), criterion_key)[0]

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, key), state, params)
        return (optax.apply_updates(params, updates), state), None

    def run(key: jax.Array) -> Any:
        params = encoder.init(jax.random.fold_in(key, 0))
        keys = jax.random.split(jax.random.fold_in(key, 1), recipe.steps)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    with jax.numpy_dtype_promotion("standard"):  # optax mixes its step count with floats
        params = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), seeds))
    return TrainedVectors(encoder, params, mean, scale)


def score_vectors(trained: TrainedVectors, seed: int, vectors: jax.Array) -> dict[str, np.ndarray]:
    """``score`` and ``gaussian_score`` [B] of one seed's encoder."""
    result = score(functools.partial(trained.embed, seed), vectors, images_per_step=256)
    return {
        "score": np.asarray(result.score),
        "gaussian_score": np.asarray(gaussian_score(result.score, result.embedding)),
    }
