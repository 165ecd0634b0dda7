"""Train and score encoders of vectors; examples are drawn inside the step, so that data never runs out.

Programs are compiled once per recipe and shape: seeds, and densities of one kind, share them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jepa_jax.jacobian import require_sound_backend
from jepa_jax.jacobian.function import OpaqueFunction
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.scoring.compute import compute_scores
from jepa_jax.scoring.options import Numerics
from jepa_jax.studies.densities import Density
from jepa_jax.training.mlp import MLP, Params
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
        hidden, residual: see `MLP`.
        steps, batch_size, learning_rate: of Adam with a cosine to zero.
    """

    outputs: int
    criterion: LeJEPA | VICReg = field(default_factory=lambda: LeJEPA(weight=0.005, directions=32))
    noise: float = 0.1
    views: int = 2
    hidden: tuple[int, ...] = (128, 128, 128)
    residual: bool = False
    steps: int = 2000
    batch_size: int = 512
    learning_rate: float = 3e-3


@functools.partial(jax.tree_util.register_dataclass, data_fields=["mean", "scale"], meta_fields=[])
@dataclass(frozen=True)
class Units:
    """The data's units: encoders see (vectors - mean) / scale, with one scale for all dimensions."""

    mean: jax.Array  # [D]
    scale: jax.Array  # []

    @classmethod
    def of(cls, density: Density) -> Units:
        """Measured on 20,000 samples."""
        sample = density.sample(jax.random.key(2**20), 20_000)
        return cls(sample.mean(axis=0), jnp.std(sample))

    def remove(self, vectors: jax.Array) -> jax.Array:
        """Vectors [..., D] in the data's units to standard ones."""
        return (vectors - self.mean) / self.scale


@dataclass(frozen=True)
class VectorEncoder(OpaqueFunction):
    """What is scored: a function of (parameters, units) and vectors [B, D] to [B, K], a `Differentiable`."""

    mlp: MLP
    gaussian = True  # for every criterion; for VICReg's embeddings that is no more than a guess

    def __call__(self, params: tuple[Params, Units], images: jax.Array) -> jax.Array:
        """[B, D] -> [B, K]."""
        return self.mlp(params[0], params[1].remove(images))


@dataclass(frozen=True)
class TrainedVectors:
    """An encoder of vectors, trained.

    Attributes:
        encoder: the architecture.
        params: its parameters.
        units: the data's.
    """

    encoder: MLP
    params: Params
    units: Units

    def scores(self, vectors: jax.Array) -> dict[str, np.ndarray]:
        """``score``, ``log_normal`` = -|f(x)|^2 / 2, and ``gaussian_score``, the sum but for a constant; [B]."""
        numerics = Numerics(JacobianOptions(images_per_step=256))
        require_sound_backend(numerics.jacobian, vit=None)
        result = compute_scores(VectorEncoder(self.encoder), numerics, (self.params, self.units), vectors)
        return {
            "score": np.asarray(result.score),
            "log_normal": -0.5 * np.sum(np.asarray(result.embedding) ** 2, axis=1),
            "gaussian_score": np.asarray(result.gaussian_score),
        }


def train_vectors(density: Density, recipe: Recipe, seed: int) -> TrainedVectors:
    """Train one encoder."""
    encoder = MLP(density.size, recipe.hidden, recipe.outputs, residual=recipe.residual)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its step count with floats
        params, units = _fit(recipe, encoder, density, jax.random.key(seed))
    return TrainedVectors(encoder, params, units)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _fit(recipe: Recipe, encoder: MLP, density: Density, key: jax.Array) -> tuple[Params, Units]:
    """The whole run as one program."""
    units = Units.of(density)
    views = VectorViews(recipe.views, recipe.noise)
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def loss(params: Params, key: jax.Array) -> jax.Array:
        data_key, view_key, criterion_key = jax.random.split(key, 3)
        [noisy] = views(units.remove(density.sample(data_key, recipe.batch_size)), view_key)
        return recipe.criterion(encoder(params, noisy), criterion_key)[0]

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, key), state, params)
        return (optax.apply_updates(params, updates), state), None

    params = encoder.init(jax.random.fold_in(key, 0))
    keys = jax.random.split(jax.random.fold_in(key, 1), recipe.steps)
    return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0], units
