"""Scores, against closed forms and NumPy in float64; and the error that is predicted for them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from known_spectra import METHODS, PUBLISHED, U32, U64, log_volume, matrix_with, numpy_spectrum, orthonormal

import jepa_jax as jj
from jepa_jax.encoders import EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.encoders.parameters import parameter_shapes
from jepa_jax.numerics.precision import LEVELS, NOISE, ROUNDING
from jepa_jax.scoring.forward_error import FORWARD_UNITS
from jepa_jax.spectrum import gaussian_score
from jepa_jax.spectrum.error import LOST, noise_bias, predicted_error, spread_of

# Scores made of singular values


def paper_score(values: np.ndarray, null_directions: int, eps: float) -> np.ndarray:
    """Eq. 5 of arXiv 2510.05949 with the listing's clip."""
    kept = values[..., : values.shape[-1] - null_directions]
    return np.log(np.clip(kept, eps, None)).sum(axis=-1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("null_directions", "eps"), [(0, 1e-6), (2, 1e-6), (1, 1e-3), (39, 1e-6)])
def test_jepa_score_is_the_papers_formula(dtype, null_directions, eps):
    values = np.sort(10.0 ** np.random.default_rng(1).uniform(-9, 3, (2, 3, 40)))[..., ::-1].astype(dtype)
    expected = paper_score(values.astype(np.float64), null_directions, float(np.dtype(dtype).type(eps)))
    with jax.enable_x64(dtype == "float64"):
        found = jj.jepa_score(jnp.asarray(values), null_directions, eps)
        assert found.dtype == dtype
    assert found.shape == (2, 3)
    # At most 40 logs of at most 14, each wrong by two rounding units, added in any order.
    unit = U32 if dtype == "float32" else U64
    assert np.max(np.abs(np.asarray(found) - expected)) <= 40 * 14 * (2 + math.log2(40)) * unit


@pytest.mark.parametrize("null_directions", [-1, 4, 5])
def test_unfit_null_directions_are_named(null_directions):
    with pytest.raises(jj.ArgumentError, match=f"null_directions={null_directions} .* K - 1 = 3"):
        jj.jepa_score(jnp.ones(4), null_directions)


@pytest.mark.parametrize("eps", [0.0, -1.0, float("nan")])
def test_an_unfit_clip_is_named(eps):
    with pytest.raises(jj.ArgumentError, match=f"eps={eps} must be a positive number"):
        jj.jepa_score(jnp.ones(4), eps=eps)


@pytest.mark.parametrize("batch", [None, "abc", [[1.0], [2.0, 3.0]]])
def test_what_is_no_array_is_named(batch):
    with pytest.raises(jj.ArgumentError, match=r"batch is of type \w+ and no array of numbers; pass an array \[B"):
        jj.score(lambda x: x, batch)


def test_gaussian_score_adds_the_normal_density():
    rng = np.random.default_rng(2)
    embedding, score = rng.standard_normal((5, 16)), rng.standard_normal(5)
    expected = score + scipy.stats.multivariate_normal(np.zeros(16)).logpdf(embedding)
    with jax.enable_x64(True):
        found = gaussian_score(jnp.asarray(score), jnp.asarray(embedding))
    # About twenty terms that add up to some tens.
    np.testing.assert_allclose(found, expected, rtol=20 * U64)


# jj.score on functions


def linear_map(values: np.ndarray, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """A kernel A of x @ A with these singular values, and a batch of two inputs."""
    return matrix_with(values, outputs, inputs).T, np.random.default_rng(6).standard_normal((2, inputs))


@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_linear_map_scores_its_log_volume(mode, method):
    values = np.array([4.0, 2.0, 1.0, 0.5])
    kernel, batch = linear_map(values, 6, 4)
    result = jj.score(lambda x: x @ kernel.astype(x.dtype), batch, mode=mode, method=method)
    # Kernel rounded to float32 and, with svd, decomposed in it: K U32 sigma_max for each value.
    moved = 4 * U32 * 4.0
    np.testing.assert_allclose(result.singular_values, [values] * 2, rtol=0, atol=moved)
    np.testing.assert_allclose(result.score, log_volume(values), rtol=0, atol=moved * np.sum(1 / values))
    np.testing.assert_array_equal(result.listing_score, result.score)
    # Sums of six products.
    np.testing.assert_allclose(result.embedding, batch @ kernel, rtol=0, atol=6 * U32 * 4.0 * np.abs(batch).max())
    assert result.log_volume_rank == 4
    assert result.gaussian_score is None


def test_a_float64_score_is_exact_and_leaves_float64_off_outside():
    values = np.array([4.0, 2.0, 1.0, 0.5, 0.25])
    kernel, batch = linear_map(values, 8, 5)
    result = jj.score(lambda x: x @ kernel.astype(x.dtype), batch, precision="float64")
    assert result.score.dtype == result.embedding.dtype == result.singular_values.dtype == np.float64
    # K U64 sigma_max / sigma_min = 2e-14 for each of five values.
    assert np.max(np.abs(np.asarray(result.score) - log_volume(values))) <= 1e-13
    assert jnp.asarray(batch).dtype == jnp.float32
    assert not jax.config.read("jax_enable_x64")


def test_a_nonlinear_map_scores_its_analytic_jacobian():
    first, second = np.random.default_rng(8).standard_normal((2, 5, 5))
    batch = np.random.default_rng(9).standard_normal((3, 5))
    # z = tanh(x A) B, so dz/dx = B^T diag(1 - tanh^2) A^T.
    slopes = 1 - np.tanh(batch @ first) ** 2
    jacobians = np.einsum("hk,bh,ih->bki", second, slopes, first)

    def fn(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ first.astype(x.dtype)) @ second.astype(x.dtype)

    result = jj.score(fn, batch, precision="float64")
    expected = numpy_spectrum(jacobians)
    np.testing.assert_allclose(result.singular_values, expected, rtol=0, atol=10 * U64 * expected.max())
    # Ten rounding units of the largest value on each, over the smallest.
    tolerance = 10 * U64 * np.sum(expected.max(axis=1, keepdims=True) / expected, axis=1)
    assert np.all(np.abs(np.asarray(result.score) - np.log(expected).sum(axis=1)) <= tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_fewer_inputs_than_outputs_scores_the_rank(method):
    values = np.array([3.0, 2.0])
    kernel, batch = linear_map(values, 2, 5)
    result = jj.score(lambda x: x @ kernel.astype(x.dtype), batch, method=method)
    assert result.log_volume_rank == 2
    assert result.singular_values.shape == (2, 5)
    np.testing.assert_allclose(result.score, log_volume(values), rtol=0, atol=5 * U32 * 3 * np.sum(1 / values))
    # The paper's listing clips the three zeros instead.
    listing = log_volume(values) + 3 * math.log(1e-6)
    np.testing.assert_allclose(result.listing_score, listing, rtol=5 * U32)


def test_eps_clips_both_scores():
    kernel = np.diag([2.0, 1e-3]).astype(np.float32)
    result = jj.score(lambda x: x @ kernel, np.zeros((1, 2), np.float32), eps=0.1)
    np.testing.assert_allclose(result.score, math.log(0.2), rtol=4 * U32)
    np.testing.assert_allclose(result.listing_score, math.log(0.2), rtol=4 * U32)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_result_has_its_precisions_dtype(precision):
    kernel, batch = linear_map(np.array([2.0, 1.0, 0.5]), 4, 3)
    result = jj.score(lambda x: x @ kernel.astype(x.dtype), batch, precision=precision)
    shapes = {
        name: (getattr(result, name).shape, str(getattr(result, name).dtype))
        for name in ("score", "listing_score", "singular_values", "embedding")
    }
    assert shapes == {
        "score": ((2,), precision),
        "listing_score": ((2,), precision),
        "singular_values": ((2, 3), precision),
        "embedding": ((2, 3), precision),
    }


def test_a_result_goes_on_into_a_users_program():
    kernel, batch = linear_map(np.array([2.0, 1.0, 0.5]), 4, 3)

    def fn(x: jax.Array) -> jax.Array:
        return x @ kernel.astype(x.dtype)

    result = jj.score(fn, batch)
    doubled = jax.jit(lambda r: jax.tree.map(lambda leaf: leaf + leaf, r))(result)
    assert isinstance(doubled, jj.ScoreResult)
    assert doubled.log_volume_rank == result.log_volume_rank
    np.testing.assert_array_equal(doubled.score, 2 * np.asarray(result.score))
    # The same three logs, near one, from singular values that were rounded once more.
    np.testing.assert_allclose(jj.jepa_score(result.singular_values), result.score, rtol=0, atol=3 * U32)
    score, params = jj.score_fn(fn)
    inside = jax.jit(lambda params, x: score(params, x).score + jnp.ones(2))(params, jnp.asarray(batch))
    np.testing.assert_allclose(inside, np.asarray(result.score) + 1, rtol=4 * U32)


def test_one_broken_image_is_nan_and_the_others_are_not():
    kernel, batch = linear_map(np.array([2.0, 1.0, 0.5]), 4, 3)
    batch[0, 0] = np.nan

    def fn(x: jax.Array) -> jax.Array:
        return jnp.tanh(x) @ kernel.astype(x.dtype)

    result = jj.score(fn, batch)
    np.testing.assert_array_equal(np.isnan(result.score), [True, False])
    np.testing.assert_array_equal(np.isnan(result.listing_score), [True, False])


@pytest.mark.parametrize(
    ("encoder", "batch", "options", "message"),
    [
        (jnp.sin, np.ones((2, 3), np.float32), {"precision": "tf32"}, "precision='tf32'"),
        (jnp.sin, np.ones((2, 3), np.float32), {"mode": "backward"}, "mode='backward'"),
        (jnp.sin, np.ones((2, 3), np.float32), {"method": "qr"}, "method='qr'"),
        (jnp.sin, np.ones((2, 3), np.float32), {"block_size": 0}, "block_size=0"),
        (jnp.sin, np.ones((2, 3), np.float32), {"images_per_step": -1}, "images_per_step=-1"),
        (jnp.sin, np.ones((2, 3), np.uint8), {}, "dtype uint8"),
        (jnp.sin, np.ones(3, np.float32), {}, r"shape \(3,\)"),
        ("dinov2-small", np.ones((2, 3), np.float32), {}, "encoder is a str"),
    ],
)
def test_unfit_arguments_of_score_are_named(encoder, batch, options, message):
    with pytest.raises(jj.ArgumentError, match=message):
        jj.score(encoder, batch, **options)


# jj.score on encoders


def tiny_encoder(pooling: str, gaussian: bool) -> jj.Encoder:
    """An encoder small enough for NumPy to check: scales and biases around one, matrices around zero."""
    vit = ViTSpec(
        width=8,
        depth=1,
        heads=2,
        patch_size=4,
        native_image_size=8,
        mlp_width=12,
        pooling=pooling,  # pyright: ignore[reportArgumentType]
    )
    rng = np.random.default_rng(10)
    params = jax.tree.map(
        lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32) + (len(leaf.shape) == 1),
        parameter_shapes(vit),
    )
    recipe = PreprocessSpec(resize_shortest=8, crop=8)
    return jj.Encoder(EncoderSpec("tiny", "vit", vit, recipe, gaussian_embedding=gaussian), params)


def null_directions(encoder: jj.Encoder, embedding: np.ndarray) -> np.ndarray:
    """1 / g and (z - b) / g^2 for the last LayerNorm's scale g and bias b, as unit columns [K, 2]."""
    scale, bias = (np.asarray(encoder.params["norm"][name], np.float64) for name in ("scale", "bias"))
    columns = np.stack([1 / scale, (embedding - bias) / scale**2], axis=1)
    return columns / np.linalg.norm(columns, axis=0)


@pytest.mark.parametrize(("pooling", "nulls", "gaussian"), [("class_token", 2, False), ("mean_patches", 1, True)])
def test_an_encoders_score_leaves_its_null_directions_out(pooling, nulls, gaussian):
    encoder = tiny_encoder(pooling, gaussian)
    batch = np.random.default_rng(11).standard_normal((2, 8, 8, 3))
    # flax's LayerNorm promotes its input with float32, which strict promotion forbids for float64.
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(True):
        result = jj.score(encoder, batch, precision="float64")
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), encoder.params)
        jacobians = jj.jacobian(functools.partial(encoder.function, params), jnp.asarray(batch))
    directions = np.array([null_directions(encoder, z)[:, :nulls] for z in np.asarray(result.embedding)])
    matrices = np.asarray(jacobians).reshape(2, 8, -1)
    complements = np.linalg.qr(directions, mode="complete")[0][:, :, nulls:]
    structural = numpy_spectrum(complements.swapaxes(1, 2) @ matrices)
    largest, smallest = structural.max(), structural.min()
    assert result.log_volume_rank == 8 - nulls
    # Each value is moved by some tens of rounding units of the largest, as much as the Jacobian (a chain of some tens
    # of sums, in another order here) and its decomposition are; the eight logs by that over the smallest.
    np.testing.assert_allclose(result.singular_values, numpy_spectrum(matrices), rtol=0, atol=100 * U64 * largest)
    np.testing.assert_allclose(
        result.score, np.log(structural).sum(axis=1), rtol=0, atol=8 * 100 * U64 * largest / smallest
    )
    # Along 1 / g nothing is left but rounding; along (z - b) / g^2, LayerNorm's epsilon over its input's variance.
    assert np.all(np.linalg.norm(directions[:, :, 0][:, None] @ matrices, axis=-1) <= 100 * U64 * largest)
    assert np.all(np.asarray(result.singular_values)[:, -nulls] <= 1e-2 * smallest)
    if gaussian:
        assert result.gaussian_score is not None
        normal = scipy.stats.multivariate_normal(np.zeros(8)).logpdf(np.asarray(result.embedding))
        np.testing.assert_allclose(result.gaussian_score, np.asarray(result.score) + normal, rtol=20 * U64)
    else:
        assert result.gaussian_score is None


def test_the_score_alone_equals_the_score_with_its_spectrum():
    # 0.5 and the rest lie above the clip, 1e-9 below it: where the clip decides, the spectrum is computed after all.
    for values in ([2.0, 1.0, 0.5], [2.0, 1.0, 1e-9]):
        kernel, batch = linear_map(np.array(values), 4, 3)

        def fn(x: jax.Array, kernel: np.ndarray = kernel) -> jax.Array:
            return x @ kernel.astype(x.dtype)

        with_spectrum, alone = jj.score(fn, batch), jj.score(fn, batch, spectrum=False)
        np.testing.assert_allclose(alone.score, with_spectrum.score, rtol=8 * U32, atol=8 * U32)
        assert alone.singular_values.shape == (2, 0)
        assert np.all(np.isnan(alone.listing_score))


def squares(x: jax.Array) -> jax.Array:
    """A function whose singular values are those of its input, twice as large."""
    return x * x


@pytest.mark.parametrize("method", [*METHODS, "cholesky_qr"])
@pytest.mark.parametrize("smallest", [0.5, 2e-2, 2e-3, 1e-5])
def test_the_score_alone_states_the_error_of_a_value_in_noise(method, smallest):
    # The noise of one direction is 2e-3: from a hundredth of the smallest value to two hundred times that.
    batch = np.array([[1.0, 0.9, 0.8, 0.7, smallest / 2]], np.float32)
    noise = float(2e-3 / np.linalg.norm(2 * batch) * math.sqrt(5))
    with_spectrum, alone = (
        jj.score(squares, batch, method=method, noise=noise, spectrum=spectrum) for spectrum in (True, False)
    )
    ratio = float(alone.score_error[0]) / float(with_spectrum.score_error[0])
    # Where it differs it is the larger one: by the whole sum of shares at one value instead of as it is spread.
    assert 1 - 1e-3 <= ratio <= 1.4
    lost = -0.5 * math.log1p(-LOST)
    assert (float(alone.score_error[0]) >= lost) == (smallest <= 2e-3)


def test_the_score_alone_does_not_depend_on_the_batch():
    # The first image needs the spectrum, as a value lies in noise; the second, as one lies under the clip. The others
    # do not, and so state a larger error, by one part in a hundred and more.
    batch = np.array([[1, 2, 3, 1e-4], [1, 2, 3, 1e-8], [1, 2, 3, 4], [4, 3, 2, 1.5]], np.float32)
    noise = 0.16
    together = jj.score(squares, batch, noise=noise, spectrum=False)
    for image in range(4):
        alone = jj.score(squares, batch[image : image + 1], noise=noise, spectrum=False)
        # What programs of their own may differ by: numbers side by side are rounded unlike one, by units.
        np.testing.assert_allclose(alone.score[0], together.score[image], rtol=8 * U32)
        np.testing.assert_allclose(alone.score_error[0], together.score_error[image], rtol=8 * U32)
    with_spectrum = jj.score(squares, batch, noise=noise)
    assert list(together.clipped) == list(with_spectrum.clipped) == [0, 1, 0, 0]
    assert np.isinf(together.score_error[1])
    assert np.isinf(with_spectrum.score_error[1])
    unclipped = np.array([0, 2, 3])
    ratio = np.asarray(together.score_error)[unclipped] / np.asarray(with_spectrum.score_error)[unclipped]
    np.testing.assert_allclose(ratio[0], 1, rtol=1e-3)
    assert np.all(ratio[1:] > 1.01)


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_the_predicted_error_is_honest_on_published_spectra(spectra, level):
    # Rounding as noise of the level's size in every entry of the Jacobian, which one null direction shows, and as
    # a relative error of each value: what all rows share. Of float32 the prediction is three deviations, 4.4 times the
    # median error: so many images that the sample's median tells that from 5.
    rng = np.random.default_rng(0)
    errors, predictions = [], []
    for name, step in zip(PUBLISHED[:3], (1, 1, 12), strict=True):
        values_of = np.load(spectra / f"dinov2_{name}.npz")["singular_values"].astype(np.float64)[:240:step]
        size, inputs = values_of.shape[1], 4 * values_of.shape[1]
        right = orthonormal(inputs, size, seed=10)
        for values in values_of[:, :-2]:
            noise = NOISE[level] * np.sqrt(np.sum(values**2) / (size * inputs)) * rng.standard_normal((inputs, size))
            # In the basis of its left singular vectors, the last two of them null.
            shared = 1 + (ROUNDING[level] + 12 * U32 / 2) * rng.standard_normal(size - 2)
            columns = np.concatenate([right[:, :-2] * values * shared, np.zeros((inputs, 2))], axis=1) + noise
            noise_norm = np.linalg.norm(columns[:, -1])
            gram = columns[:, :-2].T @ columns[:, :-2]
            triangle = np.linalg.cholesky(gram)  # of the span of the others, an orthonormal basis
            noise_within = np.linalg.norm(np.linalg.solve(triangle, columns[:, :-2].T @ columns[:, -1]))
            kept = np.sqrt(np.linalg.eigvalsh(gram)[::-1])
            predicted = predicted_error(
                noise_bias(jnp.asarray(kept, jnp.float32), jnp.float32(noise_norm)),
                jnp.float32(np.sum(kept**-2)),
                jnp.float32(noise_within),
                spread_of(jnp.float32(np.linalg.norm(kept)), jnp.float32(np.sum(kept**-2)), size - 2),
                rank=size - 2,
                unit=ROUNDING[level],
                forward=FORWARD_UNITS * U32 / 2,
            )
            errors.append(abs(log_volume(kept) - log_volume(values)))
            predictions.append(float(predicted))
    assert np.mean(np.array(errors) <= np.array(predictions)) >= 0.95
    assert np.median(predictions) <= 5 * np.median(errors)


def test_an_embedding_that_is_no_number_has_no_score():
    weights = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), jnp.float32)
    batch = jnp.asarray(np.random.default_rng(1).uniform(0.5, 1.5, (2, 5)), jnp.float32).at[0, 0].set(-1.0)
    for fn in (lambda x: jnp.log(x) @ weights, lambda x: x @ weights + jnp.where(x[:, :1] < 0, jnp.inf, 0.0)):
        result = jj.score(fn, batch)
        np.testing.assert_array_equal(np.isfinite(result.score), [False, True])
        np.testing.assert_array_equal(np.isfinite(result.listing_score), [False, True])
        np.testing.assert_array_equal(np.isfinite(result.score_error), [False, True])
