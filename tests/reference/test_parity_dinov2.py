"""DINOv2 in JAX equals DINOv2 in PyTorch: embeddings, blocks, Jacobians and scores, on random weights.

The expected numbers are PyTorch's in float64. What rounding explains: one rounding is 6e-8 in float32
(1e-16 in float64), and a sum of up to 6,144 products, as in the giant's MLP, adds up at random to 80 of
them: 5e-6 (9e-15). The tolerance in float32 is twice that; the one in float64 has two digits in hand.
Single precision anywhere in a float64 path would be off by five digits more.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_reference as reference

import jepa_jax as jj
from convert_weights.convert import read_source
from jepa_jax.encoders import ENCODERS
from jepa_jax.encoders.parameters import build_module, named_arrays
from jepa_jax.jacobian.jacobian import embed_with_nulls

FLOAT32_TOLERANCE = 1e-5
FLOAT64_TOLERANCE = 1e-12

# Noise e |J| on a Jacobian moves log sigma_k by up to e sigma_1 / sigma_k, and their sum by the root of K times as
# much if signs are random. Here K = 384, sigma_1 / sigma_k < 100 and e = 1e-6 (3e-15): 2e-3 nats (6e-12).
FLOAT32_SCORE_TOLERANCE = 2e-3
FLOAT64_SCORE_TOLERANCE = 1e-10

# The positions of most models here are stored for 4 x 4 patches; the published ones, for 37 x 37.
NATIVE = 56
PUBLISHED_NATIVE = 518

SIZES = {"small": (384, 6), "base": (768, 12), "large": (1024, 16), "giant": (1536, 24)}
VARIANTS = {
    f"{size}{'-registers' if registers else ''}": {
        "width": width,
        "heads": heads,
        "depth": 2,
        "image_size": NATIVE,
        "registers": registers,
        "swiglu": size == "giant",
    }
    for size, (width, heads) in SIZES.items()
    for registers in (False, True)
}
TINY = {
    "tiny": {"width": 64, "heads": 4, "depth": 2, "image_size": NATIVE},
    "tiny-swiglu-registers": {
        "width": 64,
        "heads": 4,
        "depth": 2,
        "image_size": NATIVE,
        "registers": True,
        "swiglu": True,
    },
}
SCORED = [*TINY, "small"]
FULL_SMALL = {"width": 384, "heads": 6, "depth": 12, "image_size": PUBLISHED_NATIVE}


def random_images(*shape: int, amplitude: float = 0.3) -> np.ndarray:
    """Random images [*shape, 3] of low contrast, so that the embedding follows them nearly linearly."""
    return np.random.default_rng(0).normal(0, amplitude, (*shape, 3)).astype(np.float32)


def relative_error(found: Any, expected: np.ndarray) -> float:
    """Largest absolute error over the largest absolute value."""
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def frobenius_error(found: Any, expected: np.ndarray) -> float:
    """Norm of the error over the norm."""
    return float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))


@dataclass(frozen=True)
class Pair:
    """One model on both sides; the one in PyTorch waits in float64."""

    torch_model: reference.DinoModel
    encoder: jj.Encoder

    @functools.cached_property
    def params64(self) -> Any:
        """The encoder's parameters in float64."""
        return in_float64(self.encoder.params)

    def jacobian(self, image: np.ndarray, dtype: Any, rows: slice = slice(None)) -> np.ndarray:
        """The encoder's Jacobian [K, H, W, 3] at one image in a given precision, or some of its rows."""

        @jax.jit
        def compute(params: Any, batch: jax.Array) -> jax.Array:
            return jj.jacobian(lambda pixels: self.encoder.function(params, pixels)[:, rows], batch)

        with jax.enable_x64(dtype == jnp.float64), jax.default_matmul_precision("highest"):
            params = self.params64 if dtype == jnp.float64 else self.encoder.params
            return np.asarray(compute(params, jnp.asarray(image[None], dtype))[0])


def in_float64(params: Any) -> Any:
    """Parameters widened to float64."""
    with jax.enable_x64(True):
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), params)


def embed_in_float64(encoder: jj.Encoder, params64: Any, batch: np.ndarray) -> np.ndarray:
    """An encoder's embeddings [B, K], computed in float64."""
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(encoder.function)(params64, jnp.asarray(batch, jnp.float64)))


def make_pair(folder: Path, **shape: Any) -> Pair:
    """A random model, and the encoder that reads its Hugging Face folder."""
    model = reference.random_dinov2(**shape)
    encoder = jj.load_encoder(reference.save_folder(model, folder))
    shutil.rmtree(folder)  # a giant takes 230 MB, and pytest keeps temporary folders
    return Pair(model.double(), encoder)


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=list(VARIANTS))
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Every published variant at its true width and number of heads, with two blocks."""
    yield make_pair(tmp_path_factory.mktemp("variant") / "folder", **request.param)
    jax.clear_caches()  # else eight variants' programs stay in memory


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Two small models that hold every kind of layer between them."""
    return {name: make_pair(tmp_path_factory.mktemp(name) / "folder", **shape) for name, shape in TINY.items()}


@pytest.fixture(scope="module")
def full_small(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """DINOv2-S as it is published: 12 blocks, positions for 518 pixels."""
    return make_pair(tmp_path_factory.mktemp("full") / "folder", **FULL_SMALL)


# The Jacobians below are taken at a smaller square, where positions are resized, too.
@pytest.mark.parametrize("size", [(56, 56), (42, 84)], ids=["native", "not-square"])
def test_embedding(variant: Pair, size: tuple[int, int]):
    batch = random_images(2, *size)
    expected = reference.torch_embedding(variant.torch_model, batch, torch.float64)
    assert relative_error(variant.encoder(batch), expected) <= FLOAT32_TOLERANCE
    found = embed_in_float64(variant.encoder, variant.params64, batch)
    assert relative_error(found, expected) <= FLOAT64_TOLERANCE


def test_jacobian(variant: Pair):
    image = random_images(28, 28)
    # A Jacobian's rows are pulled back independently, so 64 rows stand for all of a wide variant's.
    width = variant.encoder.spec.embedding_size
    rows = slice(None, None, 1 if width == 384 else width // 64)
    expected = reference.torch_jacobian(variant.torch_model, image, torch.float64, rows)
    assert frobenius_error(variant.jacobian(image, jnp.float32, rows), expected) <= FLOAT32_TOLERANCE
    assert frobenius_error(variant.jacobian(image, jnp.float64, rows), expected) <= FLOAT64_TOLERANCE


def test_full_small_embedding(full_small: Pair):
    batch = random_images(2, 112, 112)
    expected = reference.torch_embedding(full_small.torch_model, batch, torch.float64)
    assert relative_error(full_small.encoder(batch), expected) <= FLOAT32_TOLERANCE
    found = embed_in_float64(full_small.encoder, full_small.params64, batch)
    assert relative_error(found, expected) <= FLOAT64_TOLERANCE


def test_full_small_jacobian(full_small: Pair):
    image = random_images(56, 56)
    rows = slice(None, None, 6)  # 64 rows, as above
    expected = reference.torch_jacobian(full_small.torch_model, image, torch.float64, rows)
    assert frobenius_error(full_small.jacobian(image, jnp.float32, rows), expected) <= FLOAT32_TOLERANCE
    assert frobenius_error(full_small.jacobian(image, jnp.float64, rows), expected) <= FLOAT64_TOLERANCE


@pytest.mark.parametrize("name", TINY)
def test_every_block(tiny: dict[str, Pair], name: str):
    pair = tiny[name]
    batch = random_images(2, 42, 84)
    expected = reference.torch_block_outputs(pair.torch_model, batch, torch.float64)
    spec = pair.encoder.spec.vit
    with jax.enable_x64(True):
        stages = jax.jit(lambda params, batch: build_module(spec, params).intermediates(batch))(
            pair.params64, jnp.asarray(batch, jnp.float64)
        )
    for stage, tokens in zip(("tokens", "block_0", "block_1"), expected, strict=True):
        assert relative_error(stages[stage], tokens) <= FLOAT64_TOLERANCE, stage


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_shows(tiny: dict[str, Pair], name: str):
    # The tests above see a parameter that is dropped or in the wrong order: that moves the embedding by
    # far more than they tolerate. Only a key's bias cannot show, as it shifts all of a query's logits.
    encoder = tiny[name].encoder
    batch = random_images(1, 42, 42)
    embed = jax.jit(encoder.function)
    expected = np.asarray(embed(encoder.params, batch))
    leaves, structure = jax.tree.flatten_with_path(encoder.params)
    values = [leaf for _, leaf in leaves]
    for i, (path, leaf) in enumerate(leaves):
        for changed in (jnp.zeros_like(leaf), leaf.reshape(-1)[::-1].reshape(leaf.shape)):
            params = jax.tree.unflatten(structure, [*values[:i], changed, *values[i + 1 :]])
            assert relative_error(embed(params, batch), expected) > 100 * FLOAT32_TOLERANCE, path


@dataclass(frozen=True)
class Scored:
    """A model with images, their scores in both precisions, and the paper's listing in float64."""

    pair: Pair
    float32: jj.ScoreResult
    float64: jj.ScoreResult
    paper: np.ndarray


@pytest.fixture(scope="module", params=SCORED)
def scored(request: pytest.FixtureRequest, tiny: dict[str, Pair], tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """The small models, and one as wide as DINOv2-S, scored at 28 pixels."""
    pair = tiny.get(request.param) or make_pair(tmp_path_factory.mktemp("wide") / "folder", **VARIANTS[request.param])
    batch = random_images(1, 28, 28)
    return Scored(
        pair,
        jj.score(pair.encoder, batch),
        jj.score(pair.encoder, batch, precision="float64"),
        reference.paper_listing(pair.torch_model, batch),
    )


def test_listing_score_is_the_papers(scored: Scored):
    np.testing.assert_allclose(scored.float64.listing_score, scored.paper, rtol=0, atol=FLOAT64_SCORE_TOLERANCE)


def test_score_is_the_papers_without_nulls(scored: Scored):
    # In float64 both structural zeros of these models lie below the listing's clip of 1e-6.
    rank = scored.float64.log_volume_rank
    assert rank == scored.pair.encoder.spec.embedding_size - 2
    assert np.all(np.asarray(scored.float64.singular_values)[:, rank:] < 1e-6)
    expected = scored.paper - 2 * math.log(1e-6)
    np.testing.assert_allclose(scored.float64.score, expected, rtol=0, atol=FLOAT64_SCORE_TOLERANCE)


def test_score_in_float32(scored: Scored):
    np.testing.assert_allclose(scored.float32.score, scored.float64.score, rtol=0, atol=FLOAT32_SCORE_TOLERANCE)


@pytest.mark.parametrize("name", TINY)
def test_null_directions(tiny: dict[str, Pair], name: str):
    """Both structural nulls, against what the chain rule says of z = g u + b, u = (t - mean t) / sqrt(v + eps).

    J^T (1/g) is the derivative of sum(u) = 0. J^T ((z - b) / g^2) is that of |u|^2 / 2 = K v / (2 (v + eps)),
    which leaves eps (v + eps)^(-3/2) T^T u, with T the Jacobian of the last block's class token t.
    """
    pair = tiny[name]
    spec = pair.encoder.spec.vit
    image = random_images(28, 28)
    jacobian = pair.jacobian(image, jnp.float64).reshape(spec.width, -1)

    @jax.jit
    def nulls_and_token(params: Any, pixels: jax.Array) -> tuple[jax.Array, ...]:
        def last_token(pixels: jax.Array) -> jax.Array:
            return build_module(spec, params).intermediates(pixels[None])[f"block_{spec.depth - 1}"][0, 0]

        token, pull_back = jax.vjp(last_token, pixels)
        total = jnp.var(token) + spec.norm_eps
        u = (token - jnp.mean(token)) / jnp.sqrt(total)
        (pulled,) = pull_back(u)
        return embed_with_nulls(pair.encoder.function, params, pixels)[1], total, u, pulled.reshape(-1)

    with jax.enable_x64(True):
        parts = nulls_and_token(pair.params64, jnp.asarray(image, jnp.float64))
    directions, total, u, pulled = (np.asarray(part) for part in parts)
    length = np.linalg.norm(u / np.asarray(pair.params64["norm"]["scale"]))  # of (z - b) / g^2
    remainder = spec.norm_eps * total**-1.5 * pulled / length

    norm = np.linalg.norm(jacobian)
    exact, nearly = (jacobian.T @ directions).T
    assert np.linalg.norm(exact) <= FLOAT64_TOLERANCE * norm
    assert np.linalg.norm(nearly - remainder) <= FLOAT64_TOLERANCE * norm
    # What the second leaves is of the order of eps / v: small, but no rounding noise.
    assert 1e3 * FLOAT64_TOLERANCE * norm < np.linalg.norm(nearly) < spec.norm_eps / total * norm


@pytest.mark.parametrize("name", TINY)
def test_nulls_are_why_precisions_disagree(name: str, tmp_path: Path):
    # As in published weights, final tokens are long (eps / variance is below float32 rounding) and the embedding
    # is steep, so that float32 noise in the null directions passes the listing's clip of 1e-6.
    model = reference.random_dinov2(**TINY[name])
    with torch.no_grad():
        for scale in ("layer_scale1", "layer_scale2"):
            model.get_parameter(f"encoder.layer.1.{scale}.lambda1").mul_(16)
        model.get_parameter("embeddings.patch_embeddings.projection.weight").mul_(16)
    encoder = jj.load_encoder(reference.save_folder(model, tmp_path))
    batch = random_images(1, 28, 28, amplitude=0.02)
    single, double = jj.score(encoder, batch), jj.score(encoder, batch, precision="float64")
    rank = single.log_volume_rank
    noise, true = (np.asarray(result.singular_values)[:, rank:] for result in (single, double))
    assert np.all(true < 0.1 * noise)
    assert np.all(np.abs(np.asarray(single.listing_score) - np.asarray(double.listing_score)) > 0.1)
    # The promise to users. Rounding explains less, but these spectra span four digits.
    np.testing.assert_allclose(single.score, double.score, rtol=0, atol=0.01)


def read_official(model: reference.DinoModel, name: str, folder: Path) -> jj.Encoder:
    """The encoder that an official file with a model's parameters becomes."""
    file = folder / "official.pth"
    torch.save(reference.official_state_dict(model), file)
    encoder = read_source(file, name).encoder
    file.unlink()
    return encoder


def assert_same_params(found: Any, expected: Any):
    """Equal bit for bit."""
    found, expected = dict(named_arrays(found)), dict(named_arrays(expected))
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(
            np.asarray(found[name]).view(np.uint32), np.asarray(leaf).view(np.uint32), err_msg=name
        )


@pytest.fixture(scope="module")
def official_small(full_small: Pair, tmp_path_factory: pytest.TempPathFactory) -> jj.Encoder:
    """DINOv2-S from an official file."""
    return read_official(full_small.torch_model, "dinov2-small", tmp_path_factory.mktemp("official"))


def test_official_small_is_the_same(official_small: jj.Encoder, full_small: Pair):
    assert_same_params(official_small.params, full_small.encoder.params)
    assert official_small.spec == ENCODERS["dinov2-small"]


def test_official_registers_small_is_the_same(tmp_path: Path):
    pair = make_pair(tmp_path / "folder", **FULL_SMALL, registers=True)
    official = read_official(pair.torch_model, "dinov2-with-registers-small", tmp_path)
    assert_same_params(official.params, pair.encoder.params)
    # With registers both implementations resize positions alike, so the whole description is the same.
    assert official.spec == pair.encoder.spec == ENCODERS["dinov2-with-registers-small"]


@pytest.mark.parametrize(
    "name", ["dinov2-base", "dinov2-with-registers-large", "dinov2-giant", "dinov2-with-registers-giant"]
)
def test_official_is_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The published architecture, made small: these have gigabytes of weights.
    published = ENCODERS[name]
    swiglu = published.vit.activation == "swiglu"
    vit = dataclasses.replace(
        published.vit, width=48, depth=1, heads=3, mlp_width=128 if swiglu else 192, native_image_size=NATIVE
    )
    monkeypatch.setitem(ENCODERS, name, dataclasses.replace(published, vit=vit))
    pair = make_pair(
        tmp_path / "folder",
        width=48,
        heads=3,
        depth=1,
        image_size=NATIVE,
        registers=bool(vit.register_tokens),
        swiglu=swiglu,
    )
    assert pair.encoder.spec.name == name
    assert_same_params(read_official(pair.torch_model, name, tmp_path).params, pair.encoder.params)


def test_official_positions(official_small: jj.Encoder, full_small: Pair):
    model = full_small.torch_model
    batch = random_images(1, 112, 84)
    with reference.official_positions(model):
        expected = reference.torch_embedding(model, batch, torch.float64)
    assert relative_error(official_small(batch), expected) <= FLOAT32_TOLERANCE
    found = embed_in_float64(official_small, full_small.params64, batch)
    assert relative_error(found, expected) <= FLOAT64_TOLERANCE
    # The two ways are not two roundings of one: transformers' embedding is another.
    theirs = reference.torch_embedding(model, batch, torch.float64)
    assert relative_error(theirs, expected) > 1e-3


def test_official_positions_on_request(tmp_path: Path):
    model = reference.random_dinov2(**TINY["tiny"])
    encoder = jj.load_encoder(reference.save_folder(model, tmp_path), position_resize="bicubic_offset")
    batch = random_images(1, 28, 28)
    with reference.official_positions(model):
        expected = reference.torch_embedding(model, batch, torch.float64)
    assert relative_error(encoder(batch), expected) <= FLOAT32_TOLERANCE
