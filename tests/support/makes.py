"""Small vision transformers of every make: what each family does to its tokens, in few dimensions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.encoders import EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.encoders.parameters import initialize_params

# Both ways are exact and differ by rounding alone: some hundreds of dependent sums of at most a few dozen terms
# each, which add up like a random walk to some tens of rounding units.
TOLERANCE = {"float64": 1e-11, "float32": 1e-5}

# The tiny encoder: as DINOv2 in all but size. Jobs, tables and commands score with it; a step compiles in a second.
TINY_VIT = ViTSpec(width=24, depth=2, heads=2, patch_size=14, native_image_size=56, mlp_width=48, layer_scale=True)
TINY = EncoderSpec("tiny", "dinov2", TINY_VIT, PreprocessSpec(resize_shortest=64, crop=56))
TINIEST_VIT = dataclasses.replace(TINY_VIT, depth=1, native_image_size=28)

PLAIN = dataclasses.replace(TINY_VIT, depth=3, patch_size=4, native_image_size=16, mlp_width=40)
change = functools.partial(dataclasses.replace, PLAIN)

MAKES = {
    "class token": PLAIN,
    "swiglu and registers": change(activation="swiglu", register_tokens=2),
    "patch mean": change(class_token=False, pooling="mean_patches", layer_scale=False),
    "patch mean beside class token and registers": change(register_tokens=3, pooling="mean_patches"),
    "pre-norm, quick GELU, projection": change(
        pre_norm=True, projection=10, layer_scale=False, patch_bias=False, activation="quick_gelu"
    ),
    "projection wider than the tokens, normalised": change(pre_norm=True, projection=30, l2_normalize=True),
    "attention pool over cut edges": change(
        pooling="attention", class_token=False, activation="gelu_tanh", layer_scale=False, cut_edges=True
    ),
    "class token without a position, norm after the mean": change(
        class_position=False, pooling="mean_patches", norm_after_pooling=True, register_tokens=1
    ),
    "one block": change(depth=1),
    "MLP too wide to fold": change(mlp_width=400),
    "one head wider than the sequence": change(heads=1, width=32),
    "without query, key and value biases": change(qkv_bias=False),
    "rotary, registers, no key bias": change(rotary_base=100.0, key_bias=False, register_tokens=2),
}


def loud_params(spec: ViTSpec, dtype: str) -> dict:
    """Random parameters large enough that every nonlinearity bends and every gain and bias shows."""
    rng = np.random.default_rng(1)

    def louder(leaf: jax.Array) -> jax.Array:
        return jnp.asarray(2.0 * np.asarray(leaf) + 0.1 * rng.standard_normal(leaf.shape), dtype)

    return jax.tree.map(louder, initialize_params(spec, 0))


def relative(found: jax.Array, expected: jax.Array) -> float:
    """Error relative to the whole."""
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))
