"""Encoders of clips: the layer rules against JAX, many tokens, costs, and what no clip is."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import counted, counted_naive
from makes import TOLERANCE, loud_params, relative
from PIL import Image

import jepa_jax as jj
from jepa_jax.amortised.features import examples_in_call, feature_count, features
from jepa_jax.costs.planning import multiplications as planned
from jepa_jax.costs.planning import plan_scoring
from jepa_jax.costs.throughput import _inputs
from jepa_jax.encoders import ENCODERS, Encoder, EncoderFunction, EncoderSpec, PreprocessSpec, ViTSpec, find_spec
from jepa_jax.encoders.parameters import parameter_shapes
from jepa_jax.jacobian.jacobian import jacobian_rows, prepare
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.jobs.rows.predicted import FeatureStep
from jepa_jax.layers import SCHEDULES, query_blocks
from jepa_jax.layers.schedule import ScheduleName
from jepa_jax.numerics.products import Products
from jepa_jax.scoring.compute import compute_scores
from jepa_jax.scoring.memory import estimate_memory
from jepa_jax.scoring.options import Numerics, ScoreOptions

VIT = ViTSpec(
    width=24,
    depth=2,
    heads=2,
    patch_size=4,
    native_image_size=8,
    mlp_width=40,
    class_token=False,
    pooling="mean_patches",
    rotary_base=10000.0,
    tubelet=2,
)
SHAPE = (6, 8, 12, 3)


def encoder_of(vit: ViTSpec, frames: int = 4, side: int = 8) -> Encoder:
    spec = EncoderSpec("clips", "vjepa2", vit, PreprocessSpec(side, side, frames=frames))
    return Encoder(spec, loud_params(vit, "float32"))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoder_of(VIT)


def rules(vit: ViTSpec, params: dict, clip: jax.Array, **how: Any) -> jax.Array:
    function, options = EncoderFunction(vit), JacobianOptions(engine="rules", **how)
    prepared = prepare(function, params, clip.shape, options, compact=False)
    return jacobian_rows(function, params, prepared, clip, options=options)


def by_jax(vit: ViTSpec, params: dict, clip: jax.Array) -> jax.Array:
    return jax.jit(jax.jacrev(lambda value: EncoderFunction(vit)(params, value[None])[0]))(clip)


@pytest.mark.parametrize("each", [None, 5])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rules_equal_jax_for_all_queries_and_in_blocks_of_them(
    schedule: ScheduleName, each: int | None, monkeypatch: pytest.MonkeyPatch
):
    with jax.enable_x64(True):
        params = loud_params(VIT, "float64")
        clip = jnp.asarray(np.random.default_rng(2).standard_normal(SHAPE))
        expected = by_jax(VIT, params, clip)
        if each:  # 18 tokens: blocks of 5 leave a last one that is not full
            monkeypatch.setattr(query_blocks, "PAIRS", each * 18)
            assert query_blocks.block_size(18, 18) == 5
        for rows in (None, 5):
            found = jax.jit(functools.partial(rules, VIT, schedule=schedule, block_size=rows, precision="float64"))(
                params, clip
            )
            assert found.shape == (24, *SHAPE)
            assert relative(found, expected) <= TOLERANCE["float64"]
        assert relative(by_jax(VIT, params, clip), expected) <= TOLERANCE["float64"]
    jax.clear_caches()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_two_thousand_tokens(schedule: ScheduleName):
    """As many as 16 frames of 256 pixels make: two blocks of queries, and passes of some rows."""
    vit = dataclasses.replace(VIT, width=12, heads=1, depth=1, patch_size=2, mlp_width=12)
    shape = (16, 32, 32, 3)
    assert query_blocks.block_size(2048, 2048) == 1024
    params = loud_params(vit, "float32")
    clip = jnp.asarray(np.random.default_rng(2).standard_normal(shape), jnp.float32)
    expected = jax.jit(jax.vmap(jax.vjp(lambda v: EncoderFunction(vit)(params, v[None])[0], clip)[1]))(jnp.eye(12))[0]
    found = jax.jit(functools.partial(rules, vit, schedule=schedule, block_size=6))(params, clip)
    assert relative(found, expected) <= TOLERANCE["float32"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_costs_are_the_multiplications_of_the_program(schedule: ScheduleName):
    function = EncoderFunction(VIT)
    for rows in (None, 5):
        found = counted(function, SHAPE, JacobianOptions(schedule=schedule, block_size=rows))
        each = -(-24 // -(-24 // (rows or 24)))
        cost = function.cost(SHAPE, each, SCHEDULES[schedule], Products())
        assert planned(cost, each, 24) == pytest.approx(found, rel=0.01)
    assert cost.forward + function.cost(SHAPE, 24, SCHEDULES[schedule], Products()).by_vjp == pytest.approx(
        counted_naive(function, SHAPE), rel=0.01
    )


@pytest.mark.parametrize(("frames", "rows"), [(16, 32), (16, 128), (64, 8)])
def test_the_first_guess_of_memory_is_near_xlas_account(frames: int, rows: int):
    """Two blocks of a ViT-L; what a block needs is there, and more of them add the same to both sides."""
    vit = dataclasses.replace(find_spec("vjepa2-large").vit, depth=2)
    params, shape = parameter_shapes(vit), (1, frames, 256, 256, 3)
    options = JacobianOptions(block_size=rows)
    clip = jax.ShapeDtypeStruct(shape, np.float32)
    lowered = compute_scores.lower(EncoderFunction(vit), Numerics(options), params, clip)
    memory = lowered.compile().memory_analysis()
    assert memory is not None
    peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    estimate = estimate_memory(EncoderFunction(vit), options, shape[1:], params)
    assert estimate is not None
    assert abs(estimate.total / peak - 1) <= 0.2


def test_long_clips_go_in_passes_of_rows():
    spec = find_spec("vjepa2-large").with_frames(16, None)
    assert (spec.tokens, spec.input_shape) == (2048, (16, 256, 256, 3))
    plan = plan_scoring(spec, 1, ScoreOptions(memory=32 * 2**30, spectrum=False))
    assert plan.jacobian.block_size is not None
    assert plan.jacobian.block_size < 1024
    assert plan.memory is not None
    assert plan.memory.total <= 32 * 2**30
    with pytest.raises(jj.ArgumentError, match=r"at 256 x 256 pixels, 64 frames, take about .*, fewer frames"):
        plan_scoring(find_spec("vjepa2-large"), 1, ScoreOptions(memory=2**30, spectrum=False))


def test_a_clip_is_scored_as_any_function_s_input_is(encoder: Encoder):
    clips = np.random.default_rng(0).normal(0, 0.3, (3, *encoder.spec.input_shape)).astype(np.float32)
    result = jj.score(encoder, clips)
    assert result.log_volume_rank == 23
    generic = jj.score(encoder, clips, engine="generic")
    np.testing.assert_allclose(result.score, generic.score, rtol=0, atol=0.01)
    scorer = jj.Scorer(encoder)
    np.testing.assert_allclose(scorer(clips).score, result.score, rtol=0, atol=1e-4)
    assert _inputs(encoder, 9).shape == (9, *encoder.spec.input_shape)  # what `jepa-jax bench` measures with
    gradient = jj.score_gradient(encoder, clips[:1])
    assert gradient.shape == clips[:1].shape


NOT_CLIPS = [
    ((2, 8, 8, 3), r"takes clips, \[B, T, H, W, 3\], channels last: write clip\[None\] for one"),
    ((1, 3, 8, 8, 3), "clips of 3 frames; it must be a multiple of 2"),
    ((1, 0, 8, 8, 3), "clips of 0 frames; it must be a multiple of 2"),
    ((1, 4, 3, 8, 8), r"it must be \[B, T, H, W, 3\], channels last"),
    ((1, 4, 8, 10, 3), "8 x 10 pixels, which is no multiple of the patch size 4"),
    ((0, 4, 8, 8, 3), "with one example at least"),
]


@pytest.mark.parametrize(("shape", "message"), NOT_CLIPS)
def test_what_is_no_clip_is_refused(encoder: Encoder, shape: tuple[int, ...], message: str):
    for score in (functools.partial(jj.score, encoder), jj.Scorer(encoder)):
        with pytest.raises(jj.ArgumentError, match=message):
            score(np.zeros(shape, np.float32))


def test_clips_are_no_images():
    with pytest.raises(jj.ArgumentError, match=r"clips; this encoder takes images, \[B, H, W, 3\]"):
        jj.score(jj.load_encoder("jepa-tiny"), np.zeros((1, 4, 32, 32, 3), np.float32))
    with pytest.raises(jj.ArgumentError, match="frames=4: 'jepa-tiny' takes images, and no clips; leave it out"):
        jj.load_encoder("jepa-tiny", frames=4)


IMPOSSIBLE = [
    ({"tubelet": 0}, "tubelet=0 must be at least 1"),
    ({"rotary_base": None}, "set rotary_base, and class_token=False"),
    ({"class_token": True}, "set rotary_base, and class_token=False"),
    ({"register_tokens": 2}, "set rotary_base, and class_token=False"),
    ({"heads": 8}, "make heads of 3; a rotary embedding of clips needs an even number from 6 on"),
]


@pytest.mark.parametrize(("changes", "message"), IMPOSSIBLE)
def test_architectures_that_cannot_be(changes: dict[str, Any], message: str):
    with pytest.raises(jj.ArgumentError, match=message):
        dataclasses.replace(VIT, **changes)


def test_frames_and_images_do_not_mix():
    with pytest.raises(jj.ArgumentError, match="frames=3 must be a multiple of 2"):
        EncoderSpec("clips", "vjepa2", VIT, PreprocessSpec(8, 8, frames=3))
    with pytest.raises(jj.ArgumentError, match="frames=None must be a multiple of 2"):
        EncoderSpec("clips", "vjepa2", VIT, PreprocessSpec(8, 8))
    with pytest.raises(jj.ArgumentError, match="frames=4: 'pictures' takes images"):
        EncoderSpec(
            "pictures", "dinov2", dataclasses.replace(find_spec("jepa-tiny").vit), PreprocessSpec(32, 32, frames=4)
        )


def test_a_clips_encoder_is_stored_and_read_back(encoder: Encoder, tmp_path):
    from jepa_jax.encoders import restore_encoder, save_encoder

    save_encoder(encoder, tmp_path / "stored", {})
    restored = restore_encoder(tmp_path / "stored")
    assert (restored.spec, restored.digest) == (encoder.spec, encoder.digest)
    other = dataclasses.replace(encoder.spec, preprocess=dataclasses.replace(encoder.spec.preprocess, frame_step=2))
    assert Encoder(other, encoder.params).digest != encoder.digest
    scorer = jj.BatchScorer(model=str(tmp_path / "stored"))
    with pytest.raises(jj.ArgumentError, match="model='clips' takes clips, and a column of a batch holds pictures"):
        scorer({"image": [b""]})


def test_the_published_are_listed():
    names = [name for name in ENCODERS if name.startswith("vjepa2")]
    assert names == ["vjepa2-large", "vjepa2-huge", "vjepa2-giant", "vjepa2-giant-384"]
    assert [ENCODERS[name].preprocess.resize_shortest for name in names] == [292, 292, 292, 438]


def test_a_block_s_own_score_of_clips_is_that_of_the_encoder_cut_there(encoder: Encoder):
    clips = np.random.default_rng(1).normal(0, 0.3, (2, *encoder.spec.input_shape)).astype(np.float32)
    result = jj.score(encoder, clips, layers=[1, -1])
    cut = encoder.at_layer(1)
    assert cut.spec.input_shape == encoder.spec.input_shape
    np.testing.assert_allclose(result.layers[1].score, jj.score(cut, clips).score, rtol=0, atol=0.01)
    np.testing.assert_allclose(result.layers[2].score, result.score, rtol=0, atol=1e-4)
    assert encoder.layer_ranks([1, -1]) == {1: 23, 2: 23}
    short = encoder_of(VIT, frames=2, side=4).spec  # 96 inputs, of which an image of this size has 48
    wide = encoder_of(dataclasses.replace(short.vit, width=84), frames=2, side=4)
    assert wide.layer_ranks([1]) == {1: 83}


def test_the_cost_of_layers_of_clips_is_that_of_the_program():
    function = EncoderFunction(VIT).with_layers([1])
    cost = function.cost(SHAPE, 24, SCHEDULES["looped"], Products())
    found = counted(function, SHAPE, JacobianOptions(schedule="looped"))
    assert planned(cost, 24, 24) == pytest.approx(found, rel=0.01)


def test_features_of_clips_are_those_of_each_alone(encoder: Encoder):
    clips = np.random.default_rng(1).normal(0, 0.3, (3, *encoder.spec.input_shape)).astype(np.float32)
    assert examples_in_call(encoder, "cpu") == 16
    found = features(encoder, clips)
    assert found.shape == (3, feature_count(encoder))
    np.testing.assert_allclose(found[1:2], features(encoder, clips[1:2]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[:, -24:], encoder(clips), rtol=0, atol=1e-5)
    step = FeatureStep(encoder)
    whole = np.resize(clips, (step.batch_size, *step.image_shape))
    np.testing.assert_allclose(step.columns(step(whole), 3, ())["features"], found, rtol=0, atol=1e-5)
    with pytest.raises(jj.ArgumentError, match=r"must be float \[B, T, H, W, 3\], as Encoder.preprocess makes them"):
        features(encoder, clips[0])


def test_clips_are_prepared_from_what_a_user_has(encoder: Encoder):
    clips = np.random.default_rng(1).integers(0, 256, (2, 4, 10, 12, 3), np.uint8)
    expected = encoder.preprocess(clips)
    assert expected.shape == (2, 4, 8, 8, 3)
    frames = [[Image.fromarray(frame) for frame in clip] for clip in clips]
    for given in (jnp.asarray(clips), list(clips), list(jnp.asarray(clips)), frames):
        np.testing.assert_array_equal(encoder.preprocess(given), expected)
    for given in (clips[0], jnp.asarray(clips[0]), frames[0][0]):
        with pytest.raises(jj.ArgumentError, match="the encoder takes clips"):
            encoder.preprocess(given)
    with pytest.raises(jj.ArgumentError, match="images is str, no picture"):
        encoder.preprocess("film.mp4")  # pyright: ignore[reportArgumentType]
