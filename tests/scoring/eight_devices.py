"""One image's rows, or a batch's images, shared among eight devices: the same scores; run by `test_sharding`."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from makes import MAKES, TOLERANCE, loud_params

import jepa_jax as jj
from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec, ViTSpec
from jepa_jax.scoring.scorer import _programs

# Rounding alone tells the ways apart: other sums, of a few dozen float32 numbers, in a few dozen logs.
NATS = 1e-4


def encoder_of(spec: ViTSpec) -> Encoder:
    return Encoder(EncoderSpec("tiny", "dinov2", spec, PreprocessSpec(18, 16)), loud_params(spec, "float32"))


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoder_of(MAKES["class token"])


def mesh_of(data: int, rows: int, kind: AxisType = AxisType.Auto) -> jax.sharding.Mesh:
    return jax.make_mesh((data, rows), ("data", "rows"), axis_types=(kind, kind))


@pytest.fixture(scope="module")
def alone(encoder: Encoder, batch: np.ndarray) -> jj.ScoreResult:
    return jj.score(encoder, batch)


# 5 images on 8 or 4 devices and 24 rows on 8: nothing divides evenly but the last.
@pytest.mark.parametrize(("data", "rows"), [(8, 1), (1, 8), (4, 2)])
def test_every_mesh_gives_the_same_scores(encoder, batch, alone, data: int, rows: int):
    shared = jj.score(encoder, batch, mesh=mesh_of(data, rows))
    np.testing.assert_allclose(shared.score, alone.score, rtol=0, atol=NATS)
    np.testing.assert_allclose(shared.embedding, alone.embedding, rtol=0, atol=1e-5)
    largest = float(np.max(alone.singular_values))
    np.testing.assert_allclose(shared.singular_values, alone.singular_values, rtol=0, atol=1e-5 * largest)


def test_layers_of_every_family_share_their_rows(batch):
    # Exits of 24 rows and one of 10 on two devices each: each exit's rows are divided by themselves.
    encoder = encoder_of(MAKES["pre-norm, quick GELU, projection"])
    alone, shared = (jj.score(encoder, batch, layers=[1, 3], mesh=mesh) for mesh in (None, mesh_of(4, 2)))
    for found, expected in zip(shared.with_layers, alone.with_layers, strict=True):
        np.testing.assert_allclose(found.score, expected.score, rtol=0, atol=NATS)
        largest = float(np.max(expected.singular_values))
        np.testing.assert_allclose(found.singular_values, expected.singular_values, rtol=0, atol=1e-5 * largest)


# Both axes at once, class token pruned and not: what is left is the order of sums.
@pytest.mark.parametrize(
    ("make", "precision"),
    [*((make, "float64") for make in MAKES), *((make, "float32") for make in ("class token", "patch mean"))],
)
def test_every_family_is_exact_on_a_mesh(batch, make, precision):
    encoder = encoder_of(MAKES[make])
    exact, shared = (jj.score(encoder, batch, precision=precision, mesh=mesh) for mesh in (None, mesh_of(4, 2)))
    for name in ("singular_values", "embedding"):
        expected = np.asarray(getattr(exact, name))
        atol = TOLERANCE[precision] * np.max(np.abs(expected))
        np.testing.assert_allclose(getattr(shared, name), expected, rtol=0, atol=atol)


def test_the_axes_of_a_users_mesh_may_be_of_any_kind(encoder, batch, alone):
    plain = jax.make_mesh((4, 2), ("data", "rows"))  # explicit, unless told otherwise
    assert plain.axis_types == mesh_of(4, 2, AxisType.Explicit).axis_types
    np.testing.assert_allclose(jj.score(encoder, batch, mesh=plain).score, alone.score, rtol=0, atol=NATS)
    last_used = next(reversed(_programs.values()))
    jj.score(encoder, batch, mesh=mesh_of(4, 2))
    assert next(reversed(_programs.values())) is last_used  # one program for both
    # A user's arrays may lie on a mesh of their own, and a program may be written for one.
    placed = jax.device_put(batch[:4], NamedSharding(plain, PartitionSpec("data")))
    for mesh in (plain, None):
        np.testing.assert_allclose(jj.score(encoder, placed, mesh=mesh).score, alone.score[:4], rtol=0, atol=NATS)
        with jax.set_mesh(plain):
            found = jj.score(encoder, batch[:4], mesh=mesh).score
        np.testing.assert_allclose(found, alone.score[:4], rtol=0, atol=NATS)


def test_too_few_threads_for_a_mesh_are_refused_not_waited_for(encoder, batch, monkeypatch):
    monkeypatch.setenv("NPROC", "15")
    message = r"8 CPU devices on 15 threads would wait .*NPROC=16"
    with pytest.raises(jj.ArgumentError, match=message):
        jj.score(encoder, batch, mesh=mesh_of(8, 1))
    with pytest.raises(jj.ArgumentError, match=message):
        jj.score_fn(encoder, mesh=mesh_of(1, 8))
    with pytest.raises(jj.ArgumentError, match=message):
        jj.score_fn(encoder, parallel="pmap")
    jj.score_fn(encoder, mesh=jax.sharding.Mesh(np.array(jax.devices()[:7])[:, None], ("data", "rows")))


@pytest.mark.parametrize("method", ["svd", "cholesky_qr"])
def test_rows_on_several_devices_with_triangles_reduced_between_them(encoder, batch, alone, method):
    shared = jj.score(encoder, batch, mesh=mesh_of(1, 8), method=method, spectrum=False)
    np.testing.assert_allclose(shared.score, alone.score, rtol=0, atol=0.01)  # triangles in float32


def test_rows_that_no_number_of_devices_divides(batch):
    spec = dataclasses.replace(MAKES["swiglu and registers"], width=22, heads=2)
    encoder = encoder_of(spec)
    shared = jj.score(encoder, batch[:1], mesh=mesh_of(1, 8))
    np.testing.assert_allclose(shared.score, jj.score(encoder, batch[:1]).score, rtol=0, atol=NATS)


def test_a_plain_function_shares_its_rows_too(batch):
    def fn(x: jax.Array) -> jax.Array:
        return jax.numpy.tanh(x.reshape(x.shape[0], -1)[:, :40] * 0.3)[:, :20] ** 2

    shared = jj.score(fn, batch, mode="reverse", mesh=mesh_of(1, 8))
    np.testing.assert_allclose(shared.score, jj.score(fn, batch, mode="reverse").score, rtol=1e-6)
    with pytest.raises(jj.ArgumentError, match="has no rows to share"):
        jj.score(fn, batch, mode="forward", mesh=mesh_of(1, 8))


def test_pmap_is_the_same(encoder, batch, alone):
    fn, params = jj.score_fn(encoder, parallel="pmap")
    np.testing.assert_allclose(fn(params, jax.numpy.asarray(batch)).score, alone.score, rtol=0, atol=NATS)


def test_images_on_several_devices_need_no_communication(encoder, batch):
    def collectives(mesh: jax.sharding.Mesh) -> set[str]:
        fn, params = jj.score_fn(encoder, mesh=mesh)
        eight = jax.ShapeDtypeStruct((8, *batch.shape[1:]), batch.dtype)
        program = jax.jit(fn).lower(params, eight).as_text()
        return set(re.findall(r"stablehlo\.(all_reduce|all_gather|all_to_all|collective_permute)", program))

    assert collectives(mesh_of(8, 1)) == set()
    assert collectives(mesh_of(1, 8)) == {"all_gather", "all_to_all"}


def test_a_mesh_with_other_axes_is_refused(encoder, batch):
    with pytest.raises(jj.ArgumentError, match=r"it needs \('data', 'rows'\)"):
        jj.score(encoder, batch, mesh=jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,)))
    with pytest.raises(jj.ArgumentError, match="parallel='threads' is unknown"):
        jj.score_fn(encoder, parallel="threads")  # pyright: ignore[reportArgumentType]
