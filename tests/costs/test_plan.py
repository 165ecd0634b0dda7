"""`jepa-jax plan`: what it says is what the planner decides, and what the programs then do."""

import dataclasses
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import jepa_jax as jj
from jepa_jax.costs.planning import plan_scoring
from jepa_jax.encoders import EncoderFunction, find_spec
from jepa_jax.encoders.parameters import parameter_shapes
from jepa_jax.jacobian.options import JacobianOptions
from jepa_jax.numerics.compiler import compiler_options
from jepa_jax.scoring.memory import halved, plan_passes
from jepa_jax.scoring.options import ScoreOptions

GiB = 2**30


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jepa_jax", "plan", *arguments]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def facts(output: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, value in re.findall(r"^ (.{15}) +(.*)$", output, re.MULTILINE)}


def test_a_plan_says_what_scoring_will_do():
    done = plan("--batch-size", "3", "--memory", "2", "--compile")
    assert done.returncode == 0, done.stderr
    said = facts(done.stdout)
    program = jj.Scorer(jj.load_encoder("jepa-tiny"), memory=2 * GiB).program(np.zeros((3, 32, 32, 3), np.float32))
    outputs = jj.load_encoder("jepa-tiny").spec.embedding_size
    assert said["encoder"] == f"jepa-tiny, 32 x 32 pixels, {outputs} rows in a Jacobian"
    assert said["batch"].startswith("3 images, ")
    assert said["pass"] == f"{program.plan.block_size} of {outputs} rows"
    assert said["spectrum"] == "by gram"
    assert said["budget"] == "2,048 MiB"
    assert said["XLA's memory"] == f"{program.peak_bytes / 2**20:,.0f} MiB"
    assert re.fullmatch(rf"in \d+\.\d s; {program.at_once} image\(s\) at a time", said["compiled"])


def test_a_plan_of_layers_is_that_of_their_sweep():
    spec, options = find_spec("dinov2-small"), ScoreOptions(memory=16 * GiB)
    alone, swept = (plan_scoring(spec, 1, dataclasses.replace(options, layers=each)) for each in ((), (-1, -4)))
    assert (alone.layers, swept.layers) == ((), (9, 12))
    assert alone.multiplications < swept.multiplications < 2 * alone.multiplications
    assert swept.multiplications < swept.naive_multiplications
    assert alone.memory is not None
    assert swept.memory is not None
    assert alone.memory.total < swept.memory.total < 2 * alone.memory.total
    job = ("--images", "1000", "--rate", "10", "--score-only")
    plain, layered = (facts(plan(*job, *layers).stdout) for layers in ((), ("--layer", "1", "--layer", "-2")))
    assert "layers" not in plain
    assert layered["layers"] == "1, 3, 128 rows each"
    assert layered["written"] != plain["written"]
    done = plan(*job, "--method", "amortised", "--forward-rate", "1000", "--layer", "1")
    assert done.returncode == 2
    assert "--layer: an amortised job has none" in done.stderr


def test_a_budget_too_small_is_an_error():
    done = plan("--model", "dinov2-base", "--memory", "0.5")
    assert done.returncode == 2
    assert re.search(r"memory=512 MiB is too small: 1 row\(s\) of one image's Jacobian at 224 x 224", done.stderr)


def test_a_job_is_multiplied_out():
    job = ("--images", "3.6e6", "--devices", "4", "--rate", "50", "--price", "2.5", "--picture", "1000")
    done = plan("--score-only", *job, "--decoded", "25")
    assert done.returncode == 0, done.stderr
    said = facts(done.stdout)
    assert said["job"] == "3,600,000 images on 4 device(s), 50.0 a second each: 5.0 hours, 20.0 device-hours"
    assert said["price"] == "50, at 2.5 a device-hour"
    assert said["read"] == "3.6 GB, at 1,000 bytes a picture (--picture)"
    assert said["decoding"].startswith("200 pictures a second keep 8.0 cores busy, at 25 each")
    without = plan("--images", "1e9")
    assert without.returncode == 2
    assert "--images needs --rate" in without.stderr


@pytest.mark.parametrize("budget", [GiB // 2, 2 * GiB])
def test_a_budget_decides_rows_without_weights(budget):
    planned = plan_scoring(find_spec("dinov2-small"), 1, ScoreOptions(memory=budget, spectrum=False))
    rows = planned.jacobian.block_size
    assert rows is not None
    assert (rows < 384) == (budget < GiB)
    assert planned.memory is not None
    assert planned.memory.total <= budget
    # Several passes build the MLP's matrices several times.
    share = planned.multiplications / planned.naive_multiplications
    assert (share <= 0.75) == (rows == 384)
    assert planned.program is None


def test_other_engines_and_precisions():
    spec = find_spec("jepa-tiny")
    generic = plan_scoring(spec, 1, ScoreOptions(engine="generic"))
    assert generic.multiplications == generic.naive_multiplications
    assert generic.memory is None
    assert not generic.rules
    assert plan_scoring(spec, 1, ScoreOptions(precision="float64")).method == "svd"
    with pytest.raises(jj.ArgumentError, match="precision='bfloat16' needs the layer rules"):
        plan_scoring(spec, 1, ScoreOptions(engine="generic", precision="bfloat16"))


def test_a_gpu_multiplies_mlps_weights_out_where_a_quarter_of_its_memory_holds_them():
    encoder = EncoderFunction(find_spec("dinov2-small").vit)
    params, shape = parameter_shapes(encoder.vit), (8, 224, 224, 3)

    def planned(budget: int, **changes: Any) -> bool:
        options = dataclasses.replace(JacobianOptions(precision="float16", platform="gpu"), **changes)
        return plan_passes(encoder, params, options, shape, budget).khatri_rao

    assert planned(72 * GiB)
    assert not planned(16 * GiB), "5 GiB of a ViT-S are more than a quarter"
    assert not planned(72 * GiB, precision="float32")
    assert not planned(72 * GiB, kernels="off")
    assert not planned(72 * GiB, platform="tpu", precision="bfloat16")
    large = EncoderFunction(find_spec("dinov2-base").vit)
    options = JacobianOptions(precision="float16", platform="gpu")
    assert not plan_passes(large, parameter_shapes(large.vit), options, shape, 72 * GiB).khatri_rao


def test_what_only_saves_time_is_given_up_first():
    options = JacobianOptions(precision="float16", platform="gpu", images_per_step=8, khatri_rao=True)
    without = halved(options, 8, 384)
    assert without is not None
    assert without == dataclasses.replace(options, khatri_rao=False)
    fewer = halved(without, 8, 384)
    assert fewer is not None
    assert fewer.images_per_step == 4


def test_an_accelerators_compiler_stores_what_it_is_told_to_store():
    assert compiler_options("cpu") == {}
    for options in (compiler_options("gpu"), compiler_options("tpu")):
        assert options["xla_allow_excess_precision"] is False
