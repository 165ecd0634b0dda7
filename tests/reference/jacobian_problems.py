"""One problem table for every way of computing a Jacobian, with the truth in float64."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import jepa_jax as jj
from jepa_jax.encoders import EncoderFunction, EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.encoders.parameters import Params, parameter_shapes

BATCH = 3

# Relative Frobenius error. Each entry is a chain of about ten operations with sums of at most 100 terms, whose
# rounding errors add up like a random walk: some tens of rounding units (6e-8, 1.1e-16), and LayerNorm's division
# by a standard deviation multiplies that by a few.
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


@contextlib.contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """Full precision in one dtype."""
    # flax's LayerNorm promotes its input with float32, which strict promotion forbids for float64.
    promotion = "standard" if dtype == "float64" else "strict"
    with (
        jax.enable_x64(dtype == "float64"),
        jax.numpy_dtype_promotion(promotion),
        jax.default_matmul_precision("highest"),
    ):
        yield


@dataclass(frozen=True)
class Problem:
    """A function ``[B, *shape] -> [B, K]`` that computes in its input's dtype."""

    fn: Callable[[jax.Array], jax.Array]
    shape: tuple[int, ...]
    outputs: int


def weights(seed: int, inputs: int, outputs: int) -> np.ndarray:
    """A random matrix [inputs, outputs] that keeps the size of what it multiplies."""
    return np.random.default_rng(seed).standard_normal((inputs, outputs)) / np.sqrt(inputs)


def linear(shape: tuple[int, ...], outputs: int) -> Problem:
    """A linear map, whose Jacobian is its own transposed matrix."""
    matrix = weights(0, int(np.prod(shape)), outputs)

    def fn(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1) @ matrix.astype(x.dtype)

    return Problem(fn, shape, outputs)


def mlp(shape: tuple[int, ...], outputs: int) -> Problem:
    """Two layers with a tanh between them."""
    first, second = weights(1, int(np.prod(shape)), 11), weights(2, 11, outputs)

    def fn(x: jax.Array) -> jax.Array:
        hidden = jnp.tanh(x.reshape(x.shape[0], -1) @ first.astype(x.dtype))
        return hidden @ second.astype(x.dtype)

    return Problem(fn, shape, outputs)


def random_params(spec: ViTSpec) -> Params:
    """Parameters as no initialisation has them: scales and biases around one, matrices around zero."""
    rng = np.random.default_rng(3)
    return jax.tree.map(
        lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32) + (len(leaf.shape) == 1),
        parameter_shapes(spec),
    )


def vit(spec: ViTSpec, height: int, width: int) -> Problem:
    """A vision transformer with random parameters."""
    params = random_params(spec)

    def fn(x: jax.Array) -> jax.Array:
        return EncoderFunction(spec)(jax.tree.map(lambda p: p.astype(x.dtype), params), x)

    return Problem(fn, (height, width, 3), spec.embedding_size)


CLASS_TOKEN = ViTSpec(width=6, depth=1, heads=2, patch_size=4, native_image_size=8, mlp_width=12)
MEAN_PATCHES = ViTSpec(
    width=6,
    depth=1,
    heads=2,
    patch_size=4,
    native_image_size=8,
    mlp_width=12,
    class_token=False,
    pooling="mean_patches",
    activation="quick_gelu",
    qkv_bias=False,
)
SWIGLU_REGISTERS = ViTSpec(
    width=6,
    depth=1,
    heads=2,
    patch_size=4,
    native_image_size=8,
    mlp_width=12,
    activation="swiglu",
    register_tokens=2,
    layer_scale=True,
    position_resize="bicubic_antialias",
)

SMALL = {
    "linear_of_a_wide_image": linear((2, 5, 3), 4),
    "mlp": mlp((7,), 6),
    "less_input_than_output": mlp((2,), 7),
    "one_output": mlp((9,), 1),
}
VITS = {
    "vit_class_token": vit(CLASS_TOKEN, 8, 8),
    "vit_mean_patches_wide": vit(MEAN_PATCHES, 4, 12),
    "vit_swiglu_registers": vit(SWIGLU_REGISTERS, 8, 8),
}
PROBLEMS = SMALL | VITS


def points(name: str, dtype: str = "float64") -> np.ndarray:
    """The batch at which a problem is differentiated; the same numbers in either dtype."""
    values = np.random.default_rng(7).standard_normal((BATCH, *PROBLEMS[name].shape))
    return values.astype(np.float32).astype(dtype)


def jacobians_by(transform: Callable, name: str) -> np.ndarray:
    """Float64 Jacobians [B, K, *shape] by one of JAX's own transformations."""
    fn = PROBLEMS[name].fn
    with computing_in("float64"):
        one = transform(lambda example: fn(example[None])[0])
        return np.asarray(jax.jit(jax.vmap(one))(points(name)))


@functools.cache
def truth(name: str) -> np.ndarray:
    """What every way must agree with; `test_truth_*` check it against two other sources."""
    return jacobians_by(jax.jacrev, name)


def relative_error(found: jax.Array | np.ndarray, expected: np.ndarray) -> float:
    """Frobenius norm of the difference over the norm of what is expected, over a whole batch."""
    return float(np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected))


def tiny_encoder() -> jj.Encoder:
    """A tiny encoder with random parameters."""
    spec = EncoderSpec("tiny", "vit", CLASS_TOKEN, PreprocessSpec(resize_shortest=8, crop=8))
    return jj.Encoder(spec, random_params(CLASS_TOKEN))


def ones(*shape: int) -> np.ndarray:
    """Something to differentiate at, where the error comes first."""
    return np.ones(shape, np.float32)
