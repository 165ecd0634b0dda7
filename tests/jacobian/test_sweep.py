"""The Jacobians of several layers by one sweep, against JAX's own differentiation of the truncated encoder."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from makes import MAKES, TOLERANCE, loud_params, relative

from jepa_jax.encoders import EncoderFunction, ViTSpec
from jepa_jax.encoders.parameters import build_module
from jepa_jax.jacobian.jacobian import Differential, differentials, prepare
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.numerics.precision import NOISE

NULL_DIRECTIONS = {"class_token": 2, "mean_patches": 1, "attention": 0}
"""Of a layer, by its pooling, where the norm stands before it."""


def layer_embedding(spec: ViTSpec, params: dict, number: int, image: jax.Array) -> jax.Array:
    """What a layer is said to be, as plainly as it can be written."""
    module = build_module(spec, params)
    tokens = module.intermediates(image[None])[f"block_{number - 1}"]
    if spec.norm_after_pooling:
        return module.norm(jnp.mean(tokens[:, spec.prefix_tokens :], axis=1))[0]
    normed = module.norm(tokens)
    if spec.pooling == "attention":
        return module.attention_pool(normed)[0, 0]
    return normed[0, 0] if spec.pooling == "class_token" else jnp.mean(normed[0, spec.prefix_tokens :], axis=0)


def swept(spec: ViTSpec, params: dict, image: jax.Array, layers: tuple[int, ...], **how: Any) -> list[Differential]:
    function, options = EncoderFunction(spec).with_layers(layers), JacobianOptions(engine="rules", **how)
    prepared = prepare(function, params, image.shape, options, compact=True)
    return differentials(function, params, prepared, image, options)


def gram(matrix: jax.Array) -> jax.Array:
    """Of rows [K, D]: what isometries of the input leave as it is."""
    return matrix @ matrix.T


def picture(dtype: str) -> jax.Array:
    return jnp.asarray(np.random.default_rng(2).standard_normal((12, 20, 3)), dtype)


@pytest.mark.parametrize("make", MAKES)
def test_each_layer_is_the_truncated_encoder(make: str):
    # An epsilon that nothing shows of: all null directions are exact then.
    spec = dataclasses.replace(MAKES[make], norm_eps=1e-25)
    numbers = tuple(range(1, spec.depth + 1))
    with jax.enable_x64(True):
        params, image = loud_params(spec, "float64"), picture("float64")

        def layers(image: jax.Array) -> list[jax.Array]:
            embeddings = [layer_embedding(spec, params, number, image) for number in numbers]
            return [*embeddings, EncoderFunction(spec)(params, image[None])[0]]

        embeddings, jacobians = jax.jit(lambda image: (layers(image), jax.jacrev(layers)(image)))(image)
        if not (spec.projection or spec.l2_normalize):  # the last layer is the encoder, and no exit of its own
            del embeddings[-2], jacobians[-2]
        for schedule, block_size in (("looped", None), ("batched", 5)):
            how = {"precision": "float64", "schedule": schedule, "block_size": block_size}
            found = jax.jit(functools.partial(swept, spec, layers=numbers, **how))(params, image)
            assert len(found) == len(embeddings)
            for each, embedding, jacobian in zip(found, embeddings, jacobians, strict=True):
                assert relative(each.embedding, embedding) <= TOLERANCE["float64"]
                expected = gram(jacobian.reshape(len(jacobian), -1))
                assert relative(gram(each.transpose.T), expected) <= 2 * TOLERANCE["float64"]
                along = jacobian.reshape(len(jacobian), -1).T @ each.null_directions
                assert jnp.linalg.norm(along) <= TOLERANCE["float64"] * jnp.linalg.norm(jacobian)
            nulls = 2 if spec.norm_after_pooling else NULL_DIRECTIONS[spec.pooling]
            assert [each.null_directions.shape[1] for each in found[:-1]] == [nulls] * (len(found) - 1)


def test_sixteen_bits_are_normalised_for_each_layer():
    """Cotangents of layers differ in size: in float16 each has its own power of two."""
    spec, layers = MAKES["class token"], (1, 2)
    params = loud_params(spec, "float32")
    # A gain so large that what the blocks make of cotangents would leave the range of float16, were they not scaled.
    params["norm"]["scale"] = 1e4 * params["norm"]["scale"]
    image = picture("float32")
    expected = jax.jit(functools.partial(swept, spec, layers=layers))(params, image)
    how = {"precision": "float16", "platform": "gpu", "schedule": "batched"}
    found = jax.jit(functools.partial(swept, spec, layers=layers, **how))(params, image)
    for each, exact in zip(found, expected, strict=True):
        assert each.transpose.dtype == jnp.float32
        assert relative(gram(each.transpose.T), gram(exact.transpose.T)) <= 2 * 2.5 * NOISE["float16"]
