"""I-JEPA's loss and its moving average against torch and NumPy in float64: no line of ours is used there."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jepa_jax.encoders import EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.training.config import Optimizer, TrainingConfig
from jepa_jax.training.loop import train_step
from jepa_jax.training.masked_prediction import MaskedPrediction, draw_masks, prediction_loss
from jepa_jax.training.state import State, initial_state, model_of

TOLERANCE = 1e-6

GRID, PATCH, WIDTH, HEADS, BATCH = 5, 4, 24, 3, 3
OBJECTIVE = MaskedPrediction(blocks=3, block_shape=(2, 3), predictor_width=64, predictor_depth=2, target_decay=0.9)
PREDICTOR_HEADS = 2  # of 32 dimensions each
ENCODER = EncoderSpec(
    name="toy",
    family="vit",
    vit=ViTSpec(
        width=WIDTH,
        depth=2,
        heads=HEADS,
        patch_size=PATCH,
        native_image_size=GRID * PATCH,
        mlp_width=40,
        class_token=False,
        pooling="mean_patches",
    ),
    preprocess=PreprocessSpec(resize_shortest=GRID * PATCH, crop=GRID * PATCH, mean=(0.5, 0.4, 0.3)),
)
CONFIG = TrainingConfig(
    name="toy",
    encoder=ENCODER,
    objective=OBJECTIVE,
    optimizer=Optimizer(learning_rate=0.01, warmup_steps=1, decay_steps=1),
    steps=10,
    batch_size=BATCH,
)


def drawn_like(tree: Any, seed: int) -> Any:
    """The same structure with every value its own: no bias is zero, and no scale is one."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) + 0.2 * rng.normal(size=leaf.shape), tree)


def tensors(tree: Any) -> Any:
    return jax.tree.map(torch.tensor, tree)


def torch_linear(layer: dict, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, layer["kernel"].T, layer["bias"])


def torch_norm(layer: dict, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, (x.shape[-1],), layer["scale"], layer["bias"], eps=1e-6)


def torch_block(block: dict, x: torch.Tensor, heads: int) -> torch.Tensor:
    """A pre-norm transformer block on the tokens [N, d] of one image."""
    query, key, value = (
        part.reshape(len(x), heads, -1).transpose(0, 1)
        for part in torch_linear(block["attention"]["qkv"], torch_norm(block["norm1"], x)).chunk(3, dim=-1)
    )
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(0, 1).reshape(len(x), -1)
    x = x + torch_linear(block["attention"]["out"], mixed)
    hidden = F.gelu(torch_linear(block["mlp"]["fc1"], torch_norm(block["norm2"], x)))
    return x + torch_linear(block["mlp"]["fc2"], hidden)


def torch_tokens(params: dict, image: torch.Tensor, kept: list[int]) -> torch.Tensor:
    """The encoder's last tokens of one image [S, S, 3] when it sees the patches ``kept`` alone, in their order."""
    filters = params["patch_embedding"]["projection"]["kernel"].reshape(PATCH, PATCH, 3, WIDTH).permute(3, 2, 0, 1)
    bias = params["patch_embedding"]["projection"]["bias"]
    patches = F.conv2d(image.permute(2, 0, 1)[None], filters, bias, stride=PATCH)[0]  # [d, rows, columns]
    rows = [patches[:, i // GRID, i % GRID] + params["position_embedding"][i] for i in kept]
    x = torch.stack(rows)
    for block in params["blocks"].values():
        x = torch_block(block, x, HEADS)
    return torch_norm(params["norm"], x)


def torch_prediction(params: dict, seen: torch.Tensor, kept: list[int], block: list[int]) -> torch.Tensor:
    """The predictor's tokens for the patches of one block of one image."""
    known = [
        torch_linear(params["inward"], token) + params["positions"][i] for token, i in zip(seen, kept, strict=True)
    ]
    asked = [params["mask_token"] + params["positions"][i] for i in block]
    x = torch.stack([*asked, *known])  # ours has them last: attention knows no order
    for layer in params["blocks"].values():
        x = torch_block(layer, x, PREDICTOR_HEADS)
    return torch_linear(params["outward"], torch_norm(params["norm"], x[: len(block)]))


def torch_loss(
    params: dict, target: dict, images: torch.Tensor, contexts: np.ndarray, blocks: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over images, blocks, patches and channels; and the targets' mean tokens [B, d]."""
    recipe = ENCODER.preprocess
    images = (images - torch.tensor(recipe.mean)) / torch.tensor(recipe.std)
    losses, means = [], []
    for image, kept, wanted in zip(images, contexts.tolist(), blocks.tolist(), strict=True):
        whole = torch_tokens(target, image, list(range(GRID**2)))
        seen = torch_tokens(params["encoder"], image, kept)
        means.append(whole.mean(dim=0))
        for block in wanted:
            normal = F.layer_norm(whole[block], (WIDTH,))
            losses.append(F.smooth_l1_loss(torch_prediction(params["head"], seen, kept, block), normal))
    return torch.stack(losses).mean(), torch.stack(means)


def test_the_whole_loss_equals_torch():
    """From pixels to the scalar, student, target and predictor of parameters of their own, masks given."""
    with jax.enable_x64(True), torch.no_grad():
        params = drawn_like(initial_state(CONFIG)["params"], seed=1)
        target = drawn_like(params["encoder"], seed=2)
        images = np.random.default_rng(3).uniform(size=(BATCH, GRID * PATCH, GRID * PATCH, 3))
        key = jax.random.key(4)
        masks = [draw_masks(k, GRID, OBJECTIVE.blocks, OBJECTIVE.block_shape) for k in jax.random.split(key, BATCH)]
        contexts, blocks = (np.stack(part) for part in zip(*masks, strict=True))
        assert len({tuple(kept) for kept in contexts.tolist()}) == BATCH  # each image has its own

        given = jax.tree.map(jnp.asarray, (params, target, images))
        ours, (terms, means) = OBJECTIVE.loss(model_of(CONFIG), given[0], given[1], given[2], key)
        wanted, wanted_means = torch_loss(tensors(params), tensors(target), torch.tensor(images), contexts, blocks)
    assert ours.dtype == jnp.float64
    assert float(ours) == pytest.approx(float(wanted), rel=TOLERANCE)
    assert float(terms["prediction"]) == float(ours)
    assert np.allclose(means, wanted_means, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_target_is_the_moving_average_of_the_encoder_that_was_updated():
    """decay * old + (1 - decay) * new, each step anew.

    In float32: a product and its constant are each rounded once, and so is the sum, so that the error is within three
    units of rounding, 2^-24, of the two terms' magnitudes.
    """
    decay, state = OBJECTIVE.target_decay, initial_state(CONFIG)
    state["target"] = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), drawn_like(state["target"], seed=5))
    images = jnp.asarray(np.random.default_rng(6).integers(0, 256, (BATCH, GRID * PATCH, GRID * PATCH, 3), np.uint8))
    step = jax.jit(lambda state: train_step(CONFIG, state, images)[0])
    steps: list[State] = [state]
    for _ in range(3):
        steps.append(step(steps[-1]))

    def leaves(tree: Any) -> list[np.ndarray]:
        return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]

    for before, after in itertools.pairwise(steps[1:]):  # the first step's rate is zero
        parts = (before["target"], before["params"]["encoder"], after["params"]["encoder"], after["target"])
        told_apart = False
        for old, former, new, found in zip(*map(leaves, parts), strict=True):
            bound = 3 * 2.0**-24 * (decay * np.abs(old) + (1 - decay) * np.abs(new))
            assert np.all(np.abs(found - (decay * old + (1 - decay) * new)) <= bound)
            told_apart |= bool(np.any((1 - decay) * np.abs(new - former) > 2 * bound))
        assert told_apart  # from an average over the parameters before the update


def test_prediction_loss_equals_torch():
    rng = np.random.default_rng(1)
    predicted, wanted = rng.normal(size=(2, 4, 3, 9, 16)) * 2
    normal = torch.nn.functional.layer_norm(torch.tensor(wanted), (16,))
    torch_loss = torch.nn.functional.smooth_l1_loss(torch.tensor(predicted), normal)
    with jax.enable_x64(True):
        ours = prediction_loss(jnp.asarray(predicted), jnp.asarray(wanted))
    assert float(ours) == pytest.approx(float(torch_loss), rel=TOLERANCE)


def test_masks_are_blocks_and_the_context_avoids_them():
    context, blocks = jax.vmap(lambda key: draw_masks(key, 8, 4, (3, 2)))(jax.random.split(jax.random.key(0), 50))
    assert context.shape == (50, 64 - 24)
    assert blocks.shape == (50, 4, 6)
    for seen, wanted in zip(np.asarray(context), np.asarray(blocks), strict=True):
        assert len(set(seen)) == len(seen)
        assert not set(seen) & set(wanted.ravel())
        for block in wanted:
            rows, columns = np.unique(block // 8), np.unique(block % 8)
            assert np.array_equal(rows, rows[0] + np.arange(3))
            assert np.array_equal(columns, columns[0] + np.arange(2))
            assert rows[-1] < 8
            assert len(set(block)) == 6
