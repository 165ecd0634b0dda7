"""Memory that is planned, ran out of, or too small; precision that is predicted, and refined where it must be."""

import dataclasses
import gc
import itertools
import subprocess
import sys
import textwrap
import weakref
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from makes import MAKES, loud_params

import jepa_jax as jj
from jepa_jax.encoders import Encoder, EncoderFunction, EncoderSpec, PreprocessSpec, ViTSpec, find_spec
from jepa_jax.encoders.parameters import initialize_params, parameter_shapes
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.numerics.precision import FASTEST, LEVELS, ROUNDING, Precision
from jepa_jax.scoring import compute, programs
from jepa_jax.scoring.compute import compute_scores
from jepa_jax.scoring.memory import estimate_memory, plan_passes
from jepa_jax.scoring.options import Numerics

SPEC = ViTSpec(width=96, depth=4, heads=3, patch_size=8, native_image_size=48, mlp_width=384, layer_scale=False)
MiB = 2**20


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(EncoderSpec("small", "dinov2", SPEC, PreprocessSpec(48, 48)), loud_params(SPEC, "float32"))


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    # From flat to loud pictures, so that spectra differ.
    pictures = np.random.default_rng(0).standard_normal((8, 48, 48, 3))
    return (pictures * np.linspace(0.3, 2, 8)[:, None, None, None]).astype(np.float32)


@pytest.fixture(scope="module")
def exact(encoder: Encoder, batch: np.ndarray) -> np.ndarray:
    return np.asarray(jj.score(encoder, batch, precision="float64").score)


@pytest.fixture(scope="module", params=["measured", "null direction"])
def trained(request: pytest.FixtureRequest) -> tuple[Encoder, np.ndarray, np.ndarray]:
    """The encoder that ships, pieces of photographs, flat ones among them, and their scores in float64.

    Its projection leaves no null direction; without it there is one, which shows each image's own noise.
    """
    encoder = jj.load_encoder("jepa-tiny")
    if request.param == "null direction":
        vit = dataclasses.replace(encoder.spec.vit, projection=None)
        params = {name: value for name, value in encoder.params.items() if name != "projection"}
        encoder = Encoder(dataclasses.replace(encoder.spec, vit=vit), params)
    photographs = skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()
    corners = [(i, j) for i in range(0, 256, 64) for j in range(0, 384, 64)]
    pieces = [photograph[i : i + 64, j : j + 64] for photograph in photographs for i, j in corners]
    batch = encoder.preprocess(pieces)
    return encoder, batch, np.asarray(jj.score(encoder, batch, precision="float64").score)


def test_the_predicted_error_is_honest(trained):
    """At least 95% of images within it, and it is no larger than what it says of itself: three deviations.

    How a processor rounds decides the errors of these 96 images, so each processor draws another sample. Of a share of
    98%, which is what is found, one sample in forty falls below 95%: so the claim is held to all levels together, and
    each alone to 90%, below which none of a million falls. A median of so many errors scatters by a fifth and more (a
    bound of 5 times the median was passed by 0.08 on one processor); the root of their mean square is half as wide. If
    deviations are predicted right, predictions are at most three times the errors by that measure; pieces of the same
    photographs are worth some 24 independent images, whose root mean square scatters by 14%: twice that below its
    expectation gives 4.2. Found were 1.9 to 3.2, on processors with AVX2, AVX-512 and by other orders of summation, so
    that predictions twice as large would fail.
    """
    encoder, batch, exact = trained
    within = {}
    for precision in LEVELS[:-1]:
        noise = None if encoder.null_direction_count else jj.measure_noise(encoder, batch[:4], precision)
        result = jj.score(encoder, batch, precision=precision, noise=noise)
        error = np.abs(np.asarray(result.score, np.float64) - exact)
        predicted = np.asarray(result.score_error, np.float64)
        within[precision] = np.mean(error <= predicted)
        assert within[precision] >= 0.9, precision
        assert rms(predicted) <= 4.2 * rms(error), precision
        assert np.all(np.asarray(result.level) == LEVELS.index(precision))
    assert np.mean(list(within.values())) >= 0.95


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def test_a_steeper_encoder_states_a_larger_error(encoder, batch, exact):
    # The same architecture with weights as they are drawn, and twice as large (`encoder`): a rounding error grows.
    flat = Encoder(encoder.spec, initialize_params(SPEC, 0))
    stated = {
        name: np.median(jj.score(model, batch).score_error) for name, model in (("flat", flat), ("steep", encoder))
    }
    assert stated["steep"] > 2 * stated["flat"]
    result = jj.score(encoder, batch)
    # What is stated is two to three deviations: four and more are none of ten thousand images, on any processor.
    assert np.all(np.abs(np.asarray(result.score, np.float64) - exact) <= 2 * np.asarray(result.score_error))


def test_the_error_of_a_flat_image_is_predicted_too():
    encoder = jj.load_encoder("jepa-tiny")
    images = 1e-3 * np.random.default_rng(0).standard_normal((8, *encoder.spec.input_shape)).astype(np.float32)
    exact = np.asarray(jj.score(encoder, images, precision="float64").score)
    result = jj.score(encoder, images)
    assert np.all(np.abs(np.asarray(result.score, np.float64) - exact) <= 2 * np.asarray(result.score_error))


def test_precisions_differ_as_their_names_say(encoder, batch, exact):
    scores: dict[Precision, np.ndarray] = {
        level: np.asarray(jj.score(encoder, batch, precision=level).score) for level in LEVELS[:-1]
    }
    errors: dict[Precision, float] = {level: rms(found - exact) for level, found in scores.items()}
    # Rounding units are equal (float16 and TF32), or lie 2^3 apart and more; the root mean square of eight errors
    # scatters by a quarter.
    for (one, error), (other, error_of_other) in itertools.combinations(errors.items(), 2):
        if ROUNDING[one] == ROUNDING[other]:
            assert 1 / 4 < error / error_of_other < 4
        else:
            assert error > error_of_other
    assert errors["bfloat16"] > 100 * errors["float32"]


def test_a_tolerance_sends_images_up_the_ladder(encoder, batch, exact):
    coarse = jj.score(encoder, batch, precision="bfloat16")
    tolerance = float(np.median(coarse.score_error))
    refined = jj.score(encoder, batch, precision="bfloat16", tolerance=tolerance)
    unsure = np.asarray(coarse.score_error) > tolerance
    assert 0 < unsure.sum() < len(batch)
    np.testing.assert_array_equal(np.asarray(refined.level) > 0, unsure)
    np.testing.assert_array_equal(np.asarray(refined.score)[~unsure], np.asarray(coarse.score)[~unsure])
    assert np.all(np.asarray(refined.score_error) <= tolerance)
    everything = jj.score(encoder, batch, tolerance=1e-9)
    np.testing.assert_array_equal(everything.level, LEVELS.index("float64"))
    np.testing.assert_allclose(everything.score, exact, rtol=1e-7)  # rounded to the float32 of the others


def test_kernels_are_prepared_once_for_all_batches(encoder, batch, monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(
        programs, "prepare_kernels", lambda *args: calls.append(args) or compute.prepare_kernels(*args)
    )
    monkeypatch.setattr(programs, "PREPARED_APART", {"cpu"})  # as on an accelerator
    scorer = jj.Scorer(encoder, block_size=11)  # nobody else's program
    first = scorer(batch[:2])
    tracing = len(calls)
    again = scorer(batch[:2])
    assert len(calls) == tracing
    np.testing.assert_array_equal(first.score, again.score)
    # Other parameters have other kernels.
    scorer.params = jax.tree.map(lambda leaf: 1.01 * leaf, scorer.params)
    changed = scorer(batch[:2])
    assert len(calls) == tracing + 1
    assert np.all(np.asarray(changed.score) != np.asarray(first.score))
    run, _ = jj.score_fn(encoder)
    made_there = run(scorer.params, jnp.asarray(batch[:2]))
    np.testing.assert_allclose(changed.score, made_there.score, atol=1e-3)
    # And so they have where one array has taken another's place, in the same dictionary.
    scorer.params["blocks"][0]["mlp"]["fc1"]["kernel"] *= 3
    replaced = scorer(batch[:2])
    assert len(calls) == tracing + 2
    made_there = run(scorer.params, jnp.asarray(batch[:2]))
    np.testing.assert_allclose(replaced.score, made_there.score, atol=1e-3)


def test_auto_on_an_accelerator_climbs_where_it_gains_digits(encoder, batch, exact, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(FASTEST, "cpu", "float16")  # as on a GPU
    fast = jj.score(encoder, batch, precision="float16")
    tolerance = float(np.median(fast.score_error))
    assert 0 < tolerance < 0.05
    within = jj.score(encoder, batch)
    assert np.all(np.asarray(within.score_error) <= 0.05)
    asked = jj.score(encoder, batch, tolerance=tolerance)
    unsure = np.asarray(fast.score_error) > tolerance
    # Not TensorFloat32, which rounds as float16 does.
    expected = np.where(unsure, LEVELS.index("bfloat16_3x"), LEVELS.index("float16"))
    np.testing.assert_array_equal(asked.level, expected)
    assert np.all(np.abs(np.asarray(asked.score) - exact) <= 2 * np.asarray(asked.score_error))


def test_coarse_precisions_need_the_rules(batch):
    with pytest.raises(jj.ArgumentError, match="precision='bfloat16' needs the layer rules"):
        jj.score(lambda x: x.reshape(len(x), -1)[:, :3], batch, precision="bfloat16")


def test_a_budget_decides_how_many_rows_go_at_once(encoder, batch):
    whole, tight = jj.Scorer(encoder), jj.Scorer(encoder, memory=8 * MiB)
    plans = [scorer.program(batch[:1]).plan for scorer in (whole, tight)]
    assert plans[0].block_size == 96
    assert plans[1].block_size is not None
    assert plans[1].block_size < 96
    assert 0 < tight.program(batch[:1]).peak_bytes <= 8 * MiB
    np.testing.assert_allclose(tight(batch[:1]).score, whole(batch[:1]).score, rtol=0, atol=1e-4)


def test_a_budget_too_small_for_one_row_is_refused(encoder, batch):
    with pytest.raises(jj.ArgumentError, match=r"memory=1 MiB is too small: 1 row\(s\)"):
        jj.score(encoder, batch, memory=MiB)
    with pytest.raises(jj.ArgumentError, match="memory=-5 must be positive"):
        jj.score(encoder, batch, memory=-5)


@pytest.mark.parametrize(
    ("name", "image_size", "block_size"),
    [("dinov2-small", 112, None), ("dinov2-small", 224, 128), ("dinov2-base", 224, None), ("dinov2-large", 224, 256)],
)
def test_the_first_guess_of_memory_is_near_xlas_account(name, image_size, block_size):
    spec = find_spec(name).vit
    params, shape = parameter_shapes(spec), (1, image_size, image_size, 3)
    options = JacobianOptions(block_size=block_size)
    image = jax.ShapeDtypeStruct(shape, np.float32)
    lowered = compute_scores.lower(EncoderFunction(spec), Numerics(options), params, image)
    memory = lowered.compile().memory_analysis()
    assert memory is not None
    peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    estimate = estimate_memory(EncoderFunction(spec), options, shape[1:], params)
    assert estimate is not None
    assert abs(estimate.total / peak - 1) <= 0.2
    assert name != "dinov2-base" or peak < 8 * 2**30


def test_a_float64_program_is_compiled_before_it_runs(encoder):
    shape = jax.ShapeDtypeStruct((2, 48, 48, 3), np.float32)
    assert jj.Scorer(encoder, precision="float64").program(shape).plan.precision == "float64"


def test_a_user_s_numbers_are_kept():
    spec = find_spec("dinov2-small").vit
    options = JacobianOptions(block_size=7, images_per_step=2)
    assert plan_passes(EncoderFunction(spec), parameter_shapes(spec), options, (2, 112, 112, 3), 2**34) == options


OWN_PROCESS = """
    import jax, numpy as np
    import jepa_jax as jj
    from jepa_jax.encoders import Encoder, EncoderSpec, PreprocessSpec, ViTSpec
    from jepa_jax.encoders.parameters import initialize_params

    spec = ViTSpec(width=192, depth=2, heads=3, patch_size=8, native_image_size=192, mlp_width=768)
    encoder = Encoder(EncoderSpec("small", "dinov2", spec, PreprocessSpec(192, 192)), initialize_params(spec, 0))
    batch = np.random.default_rng(0).standard_normal((1, 192, 192, 3)).astype(np.float32)
    said = []
    scorer = jj.Scorer(encoder, report=said.append)
    needed = scorer.program(batch).peak_bytes
    def peak_resident():
        return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024

    baseline = peak_resident()
    score = float(scorer(batch).score[0])
    peak = peak_resident()
    print(score, needed, peak - baseline, len(said), scorer.program(batch).plan.block_size)
"""


def run_in_its_own_process() -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OWN_PROCESS)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [float(word) for word in done.stdout.split()]


def test_peak_memory_is_as_planned():
    _, needed, measured, reports, rows = run_in_its_own_process()
    assert abs(measured / needed - 1) <= 0.2
    assert (reports, rows) == (0, 192)


def wide(batch: jax.Array) -> jax.Array:
    """Each row's pullback takes 768 KiB, far more than all else; the barrier keeps XLA 0.12 from fusing it away."""
    repeated = jax.lax.optimization_barrier(jnp.repeat(batch, 4096, axis=1).reshape(-1, 48, 4096))
    return jnp.sum(jnp.sin(repeated) ** 2, axis=-1)


def test_without_a_budget_a_program_over_half_of_the_free_memory_is_halved(monkeypatch):
    batch = np.random.default_rng(0).standard_normal((4, 48)).astype(np.float32)
    expected = jj.Scorer(wide, mode="reverse")
    # Four images at once, 32 rows of each, as nothing else is said.
    needed = expected.program(batch).peak_bytes
    one = jj.Scorer(wide, mode="reverse", images_per_step=1, block_size=8).program(batch).peak_bytes

    def scores_with(free: int, **options: Any) -> tuple[jj.ScoreResult, list[str]]:
        monkeypatch.setattr(programs, "default_budget", lambda platform: free)
        monkeypatch.setattr("jepa_jax.scoring.scorer._programs", OrderedDict())
        said: list[str] = []
        return jj.Scorer(wide, mode="reverse", report=said.append, **options)(batch), said

    found, said = scores_with(one)
    steps = [(32, 4, 32, 2), (32, 2, 32, 1), (32, 1, 16, 1), (16, 1, 8, 1)]
    assert said == [
        f"{rows} rows of {images} image(s) at a time do not fit into memory; "
        f"going on with {fewer} rows of {left} image(s)."
        for rows, images, fewer, left in steps
    ]
    np.testing.assert_allclose(found.score, expected(batch).score, rtol=1e-6)
    assert scores_with(needed)[1] == []
    # Below that it is tried all the same: half of what is free is no limit.
    found, said = scores_with(1000)
    assert said[-1].endswith("going on with 1 rows of 1 image(s).")
    np.testing.assert_allclose(found.score, expected(batch).score, rtol=1e-6)
    # Numbers of the user's own are kept, unless a budget is set or the device refuses.
    assert scores_with(1000, block_size=32)[1] == []


def test_programs_long_unused_are_forgotten_with_what_they_closed_over(monkeypatch):
    monkeypatch.setattr("jepa_jax.scoring.scorer._programs", kept := OrderedDict())
    monkeypatch.setattr("jepa_jax.scoring.scorer._MOST_PROGRAMS", 2)
    batch = np.ones((1, 4), np.float32)

    def scored(seed: int) -> weakref.ref[jax.Array]:
        weights = jax.random.normal(jax.random.key(seed), (4, 3))
        jj.score(lambda x: x @ weights, batch)
        return weakref.ref(weights)

    weights = [scored(seed) for seed in range(4)]
    jax.clear_caches()  # what JAX itself remembers of them
    gc.collect()
    assert len(kept) == 2
    assert [each() is None for each in weights] == [True, True, False, False]
    # The last used are kept, not the last compiled.
    scorer, one, two = jj.Scorer(wide), np.ones((1, 48), np.float32), np.ones((2, 48), np.float32)
    first, second = scorer.program(one), scorer.program(two)
    assert scorer.program(one) is first
    scored(4)
    assert first in kept.values()
    assert second not in kept.values()


@pytest.mark.parametrize("make", ["class token", "swiglu and registers", "pre-norm, quick GELU, projection"])
def test_a_score_does_not_depend_on_its_batch(make):
    spec = MAKES[make]
    encoder = Encoder(EncoderSpec("tiny", "vit", spec, PreprocessSpec(18, 16)), loud_params(spec, "float32"))
    images = np.random.default_rng(5).standard_normal((7, 16, 16, 3)).astype(np.float32)
    alone = np.array([jj.score(encoder, image[None]).score[0] for image in images])
    order = np.random.default_rng(6).permutation(7)
    for size, at_once, engine in [(7, None, "rules"), (7, 3, "rules"), (4, 4, "rules"), (5, 2, "generic")]:
        batch = images[order[:size]]
        together = jj.score(encoder, batch, images_per_step=at_once, engine=engine)
        # Other sums in another order, nothing else: a peer's scores move by a whole nat.
        np.testing.assert_allclose(together.score, alone[order[:size]], rtol=0, atol=1e-4)
