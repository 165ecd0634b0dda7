"""Encoders of known worlds: trained as one program, scored by the project's own function."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jepa_jax.studies.vectors import TrainedVectors, Units
from jepa_jax.training.mlp import MLP, Params
from jepa_jax.training.objectives import LeJEPA, VICReg
from studies.known_worlds.worlds import World

NOISE = 0.05
"""Of views that are noise on x: a share of its scale."""


@dataclass(frozen=True)
class Recipe:
    """How an encoder is trained.

    Attributes:
        criterion: what compares views.
        views: ``latent``, correlated latents, or ``noise`` on x.
        width: of the two hidden layers.
        steps, batch_size, learning_rate: of Adam with a cosine to zero.
    """

    criterion: LeJEPA | VICReg = field(default_factory=lambda: LeJEPA(0.02, 64))
    views: str = "latent"
    width: int = 128
    steps: int = 1000
    batch_size: int = 512
    learning_rate: float = 3e-3


def encoder_of(world: World, recipe: Recipe) -> MLP:
    """The architecture: K = D."""
    return MLP(world.size, (recipe.width, recipe.width), world.size, residual=True)


def train(world: World, recipe: Recipe, seed: int) -> tuple[TrainedVectors, TrainedVectors]:
    """A trained encoder, and the same before it was trained."""
    mlp = encoder_of(world, recipe)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its step count with floats
        start, params, units = _fit(recipe, mlp, world, jax.random.key(seed))
    return TrainedVectors(mlp, params, units), TrainedVectors(mlp, start, units)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _fit(recipe: Recipe, mlp: MLP, world: World, key: jax.Array) -> tuple[Params, Params, Units]:
    sample = world.mix(world.draw(jax.random.key(2**20), 20_000))[0]
    units = Units(sample.mean(axis=0), jnp.std(sample))
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def pairs(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 3)
        latents = world.draw(keys[0], recipe.batch_size)
        if recipe.views == "latent":
            both = [latents, world.partner(latents, keys[1])]
            return jnp.stack([units.remove(world.mix(some)[0]) for some in both])
        x = units.remove(world.mix(latents)[0])
        return x + NOISE * jax.random.normal(keys[2], (2, *x.shape))

    def loss(params: Params, key: jax.Array) -> jax.Array:
        return recipe.criterion(mlp(params, pairs(key)), jax.random.fold_in(key, 7))[0]

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, key), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = mlp.init(jax.random.fold_in(key, 0))
    keys = jax.random.split(jax.random.fold_in(key, 1), recipe.steps)
    return start, jax.lax.scan(step, (start, optimizer.init(start)), keys)[0][0], units


def embeddings(trained: TrainedVectors, x: jax.Array) -> np.ndarray:
    """[B, D] to [B, K]."""
    return np.asarray(trained.encoder(trained.params, trained.units.remove(x)))


def determinant_signs(trained: TrainedVectors, x: jax.Array) -> np.ndarray:
    """Signs of det J at points [B, D]: [B]."""

    def sign(point: jax.Array) -> jax.Array:
        jacobian = jax.jacfwd(lambda p: trained.encoder(trained.params, trained.units.remove(p)))(point)
        return jnp.linalg.slogdet(jacobian)[0]

    return np.asarray(jax.lax.map(sign, x, batch_size=64))
