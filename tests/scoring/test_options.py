"""One set of options: what a user may choose of scores is said once, and checked once."""

import dataclasses
import subprocess
import sys
import typing

import pytest

import jepa_jax as jj
from jepa_jax.jobs import JobOptions
from jepa_jax.numerics.platforms import Platform
from jepa_jax.scoring import options
from jepa_jax.scoring.options import ScoreKeywords, ScoreOptions


def test_keywords_are_the_fields_of_the_options():
    assert typing.get_type_hints(ScoreKeywords) == typing.get_type_hints(ScoreOptions)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"precision": "float8"}, "precision='float8' is unknown"),
        ({"mode": "sideways"}, "mode='sideways' is unknown"),
        ({"engine": "steam"}, "engine='steam' is unknown"),
        ({"schedule": "later"}, "schedule='later' is unknown"),
        ({"method": "guess"}, "method='guess' is unknown"),
        ({"kernels": "popcorn"}, "kernels='popcorn' is unknown"),
        ({"block_size": 0}, "block_size=0 must be a whole number, at least 1"),
        ({"images_per_step": -1}, "images_per_step=-1 must be a whole number, at least 1"),
        ({"block_size": 2.5}, "block_size=2.5 must be a whole number, at least 1"),
        ({"tolerance": 0.0}, "tolerance=0.0 must be positive"),
        ({"eps": 0.0}, "eps=0.0 must be positive"),
        ({"eps": float("nan")}, "eps=nan must be positive"),
        ({"memory": -5}, "memory=-5 must be positive"),
        ({"memory": "1GB"}, "memory='1GB' must be positive"),
        ({"noise": float("nan")}, "noise=nan"),
        ({"noise": {"float32": 1e-6}, "precision": "bfloat16"}, "says nothing of bfloat16"),
    ],
)
def test_each_is_checked_where_it_is_given(choice: dict[str, typing.Any], message: str):
    with pytest.raises(jj.ArgumentError, match=message):
        ScoreOptions(**choice)
    with pytest.raises(jj.ArgumentError, match=message):
        JobOptions(ScoreOptions(**choice))


def test_what_a_program_depends_on_knows_neither_memory_nor_tolerance():
    plain = ScoreOptions("float32").numerics
    assert ScoreOptions("float32", memory=2**30, tolerance=0.1).numerics == plain
    assert ScoreOptions("float32", noise={"float32": 1e-6}).numerics != plain


@pytest.mark.parametrize(
    ("platform", "level", "tolerance"), [("cpu", "float32", None), ("gpu", "float16", 0.05), ("tpu", "bfloat16", 0.05)]
)
def test_auto_is_the_fastest_level_within_a_tolerance(
    monkeypatch: pytest.MonkeyPatch, platform: Platform, level: str, tolerance: float | None
):
    monkeypatch.setattr(options, "platform_of", lambda devices=None: platform)
    found = ScoreOptions().resolved(layered=True)
    assert (found.precision, found.tolerance) == (level, tolerance)
    assert found.resolved(layered=True) == found
    given = ScoreOptions(tolerance=0.2).resolved(layered=True)
    assert (given.precision, given.tolerance) == (level, 0.2)
    assert ScoreOptions("bfloat16").resolved(layered=True) == ScoreOptions("bfloat16")
    # What JAX differentiates itself has no faster level.
    for exact in (ScoreOptions().resolved(layered=False), ScoreOptions(engine="generic").resolved(layered=True)):
        assert (exact.precision, exact.tolerance) == ("float32", None)


def test_a_tolerance_of_auto_needs_the_noise_of_every_level(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(options, "platform_of", lambda devices=None: "gpu")
    with pytest.raises(jj.ArgumentError, match="says nothing of tensorfloat32, bfloat16_3x"):
        _ = ScoreOptions(noise=1e-3).resolved(layered=True).noise_by_level


def test_a_job_takes_numerics_whole_and_leaves_devices_to_itself():
    job = JobOptions(ScoreOptions("bfloat16", tolerance=0.1, spectrum=False), batch_size=4)
    assert dataclasses.asdict(job)["score"]["precision"] == "bfloat16"
    with pytest.raises(jj.ArgumentError, match="need the spectrum"):
        JobOptions(ScoreOptions(spectrum=False), columns=("singular_values",))


def test_a_pure_function_plans_nothing():
    with pytest.raises(jj.ArgumentError, match="memory=5 is not for score_fn, a pure function"):
        jj.score_fn(lambda x: x, memory=5)
    with pytest.raises(jj.ArgumentError, match="precision='auto': a pure function cannot score an image again"):
        jj.score_fn(lambda x: x, precision="auto")
    with pytest.raises(jj.ArgumentError, match=r"tolerance=0\.1 is not for score_fn, a pure function"):
        jj.score_fn(lambda x: x, tolerance=0.1)


def test_nothing_is_asked_of_devices_before_a_process_has_joined_its_peers():
    # A backend that has been looked at can no longer be made one of several processes'.
    program = """if True:
        from jepa_jax.jobs import JobOptions
        from jepa_jax.scoring.options import ScoreOptions
        JobOptions(ScoreOptions("bfloat16", tolerance=0.1))
        from jax._src import xla_bridge
        assert not xla_bridge.backends_are_initialized()
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
