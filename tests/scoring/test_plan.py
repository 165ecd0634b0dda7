"""`jepa-jax plan`: what it says is what the planner decides, and what the programs then do."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import jepa_jax as jj
from jepa_jax.encoders import find_spec
from jepa_jax.scoring.options import ScoreOptions
from jepa_jax.scoring.planning import plan_scoring

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


def test_a_budget_too_small_is_an_error():
    done = plan("--model", "dinov2-base", "--memory", "0.5")
    assert done.returncode == 2
    assert re.search(r"memory=512 MiB is too small: 1 row\(s\) of one image's Jacobian at 224 x 224", done.stderr)


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
