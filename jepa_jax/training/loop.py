"""The training loop: read it from top to bottom."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jepa_jax.errors import ArgumentError
from jepa_jax.paths import AnyPath, make_output
from jepa_jax.training.checkpoints import restore_state, save_state, saved_steps
from jepa_jax.training.config import TrainingConfig
from jepa_jax.training.objectives import embedding_rank
from jepa_jax.training.run_files import MetricsFile, pin_run
from jepa_jax.training.state import State, initial_state, model_of

COLLAPSED_SHARE = 0.1
"""An effective rank below this share of K is a collapse."""

COLLAPSED_SPREAD = 0.03
"""So is a root-mean-square deviation of the embeddings below this; every objective here sets the scale near 1."""

COLLAPSE_GRACE = 0.2
"""Share of the steps in which a low rank is no news: embeddings start out almost collapsed."""

Report = Callable[[int, dict[str, float]], None]


class CollapseWarning(UserWarning):
    """The embeddings occupy few of their dimensions: scores of such an encoder mean nothing."""


def train(
    config: TrainingConfig,
    examples: np.ndarray,
    output: AnyPath,
    report: Report | None = None,
    begin: Callable[[int], None] | None = None,
) -> State:
    """Train, or go on with training, and leave the final state in ``output/checkpoints``.

    A run that was killed goes on from its last checkpoint and, on CPUs, ends bitwise equal to one that was not:
    the state holds all that decides the next step.

    Args:
        config: what to do.
        examples: uint8 images [N, H, W, 3], or float32 vectors [N, D].
        output: directory of ``config.json``, ``metrics.jsonl`` and ``checkpoints/``; resumed if it has them.
        report: called with (step, metrics) at every line of metrics.
        begin: called with the step that the run goes on from, 0 where it begins.

    Returns:
        The final state.

    Raises:
        ArgumentError: the directory holds a run of another config, on other examples, or of more steps; or there are
            fewer examples than a batch.
    """
    if len(examples) < config.batch_size:
        raise ArgumentError(f"{len(examples)} examples are fewer than batch_size={config.batch_size}.")
    output = output.resolve()  # Orbax takes absolute paths alone
    make_output(output)
    checkpoints = output / "checkpoints"
    made = max(saved_steps(checkpoints), default=0)
    if made > config.steps:
        raise ArgumentError(f"steps={config.steps}: the run in output {output} has made {made}; give that or more.")
    pin_run(config, examples, output)

    # One axis of devices: the state on each of them, the batch divided among them.
    mesh = Mesh(np.array(jax.devices()), ("data",))
    everywhere, divided = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    if config.batch_size % mesh.size:
        raise ArgumentError(f"batch_size={config.batch_size} does not divide among {mesh.size} devices.")

    state = jax.device_put(initial_state(config), everywhere)
    if made:
        state = restore_state(checkpoints, made, state)
    begun = int(state["step"])
    if begin is not None:
        begin(begun)
    metrics = MetricsFile(output / "metrics.jsonl", begun)

    step = jax.jit(
        functools.partial(train_step, config),
        in_shardings=(everywhere, divided),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )
    clock, warned = time.monotonic(), False
    for number in range(begun, config.steps):
        batch = jax.device_put(examples[batch_indices(len(examples), config, number)], divided)
        state, terms = step(state, batch)
        done = number + 1
        if done % config.log_every == 0 or done == config.steps:
            line = {name: float(value) for name, value in terms.items()}
            warned = warned or warn_of_collapse(config, done, line)
            now = time.monotonic()
            metrics.write(done, line, seconds_per_step=(now - clock) / config.log_every)
            clock = now
            if report is not None:
                report(done, line)
        if done % config.checkpoint_every == 0 or done == config.steps:
            save_state(checkpoints, state)
    return state


def train_step(config: TrainingConfig, state: State, examples: jax.Array) -> tuple[State, dict[str, jax.Array]]:
    """One step: loss, gradient, update, and the moving average where the objective has one."""
    model, objective = model_of(config), config.objective
    key = jax.random.fold_in(jax.random.wrap_key_data(state["key"]), state["step"])

    def loss(params: Any) -> tuple[jax.Array, Any]:
        return objective.loss(model, params, state["target"], examples, key)

    (value, (terms, embeddings)), gradient = jax.value_and_grad(loss, has_aux=True)(state["params"])
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its step count with floats
        optimizer = config.optimizer.build(config.steps)
        updates, optimizer_state = optimizer.update(gradient, state["optimizer"], state["params"])
    params: Any = optax.apply_updates(state["params"], updates)
    decay = objective.target_decay
    target = state["target"]
    if decay is not None:
        target = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, target, params["encoder"])
    following = state | {"params": params, "target": target, "optimizer": optimizer_state, "step": state["step"] + 1}
    measured = {
        "gradient_norm": optax.tree.norm(gradient),
        "effective_rank": embedding_rank(embeddings),
        "spread": jnp.sqrt(jnp.mean(jnp.var(embeddings, axis=0))),
    }
    return following, {"loss": value} | terms | measured


def batch_indices(count: int, config: TrainingConfig, step: int) -> np.ndarray:
    """Which examples a step sees: every epoch has its own order, and the step alone is the position in it."""
    per_epoch = count // config.batch_size
    epoch, position = divmod(step, per_epoch)
    order = _epoch_order(count, config.seed, epoch)
    return order[position * config.batch_size : (position + 1) * config.batch_size]


@functools.lru_cache(maxsize=2)
def _epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def warn_of_collapse(config: TrainingConfig, step: int, metrics: dict[str, float]) -> bool:
    """Warn if the embeddings have collapsed after the first part of the run; say whether they have."""
    size, rank, spread = config.encoder.embedding_size, metrics["effective_rank"], metrics["spread"]
    if step < COLLAPSE_GRACE * config.steps or (rank >= COLLAPSED_SHARE * size and spread >= COLLAPSED_SPREAD):
        return False
    warnings.warn(
        f"step {step}: the embeddings of {config.name!r} have collapsed: effective rank {rank:.1f} of {size}, "
        f"standard deviation {spread:.2g}. Give the term against collapse more weight, or lower the learning rate.",
        CollapseWarning,
        stacklevel=3,
    )
    return True


def weights_of(state: State) -> Any:
    """The encoder's parameters on the host: the moving average's where there is one."""
    chosen = state["target"] or state["params"]["encoder"]
    return jax.tree.map(lambda leaf: np.asarray(jnp.asarray(leaf)), chosen)
